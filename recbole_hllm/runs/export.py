"""A finished run -> a folder that recommends without RecBole and without data, and that a training can start from."""

import logging
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recbole_hllm
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.files.formats import find_table, read_header
from recbole_hllm.data.texts.item_texts import read_item_texts
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.servable import Exports, ReadsTexts
from recbole_hllm.model.base.served_model import served_of
from recbole_hllm.runs.card_facts import Licences
from recbole_hllm.runs.export_parts import complete
from recbole_hllm.runs.run import Run
from recbole_hllm.runs.vectors import write_vectors
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.onnx_model import check_packages
from recbole_hllm.serving.quantised import DTYPES
from recbole_hllm.serving.sentence_folder import write_sentence_folder
from recbole_hllm.serving.served import Served
from recbole_hllm.storage.files import writing
from recbole_hllm.storage.folders import check_new, making

logger = logging.getLogger(__name__)


@torch.no_grad()
def export(
    run: Run,
    folder: str | Path,
    *,
    histories: bool = False,
    dtype: str = "float32",
    vectors: str | None = None,
    onnx: bool = False,
    licences: Licences | None = None,
) -> Path:
    """Writes what recommends, the items with their texts, the language model of the items where there is one, what a
    training needs to start from it, and a model card.

    Args:
        run: from ``load_run``.
        folder: a new or empty one; it is there once it is whole.
        histories: write the history of every user, too, so that users can be asked for by their id.
        dtype: of the vectors of items: float32, bfloat16 or int8; what the last two cost is measured with the run's
            test, and kept as ``quality``.
        vectors: write those of items and users for other programs, too, see ``write_vectors``: ``npy`` or ``parquet``.
        onnx: write the user model as ONNX, too.
        licences: for the card.

    Returns:
        The folder.

    Raises:
        ConfigError: something is in the folder, or it cannot be written.
        ModelError: there is nothing of the model to export, or with its keys it does not stand alone; or it is not
            written as ONNX.
        MissingExtra: packages for ONNX are not installed.
    """
    folder, model, settings = Path(folder).expanduser(), run.model.eval(), RunKeys.of(run.config)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    check_new(folder, "export")
    if onnx:
        check_packages()
    served, unserved = _served(model, needed=vectors is None)
    if onnx and served is None:
        raise ModelError(f"onnx: there is no user model: {unserved}")
    ids, fields = _items(run)
    with making(folder, "export") as new:
        if vectors is not None:
            write_vectors(run, new / files.FOR_OTHERS, vectors)
        manifest = {
            "program": f"recbole-hllm {recbole_hllm.__version__}",
            "exported": datetime.now(timezone.utc).isoformat(),
            "model": settings.model,
            "dataset": settings.dataset,
            "item_field": run.dataset.iid_field,
            **_write_model(model, served, unserved, new, dtype),
        }
        files.write_items(new, ids, fields)
        if histories:
            files.write_histories(new, _histories(run))
        if served is not None:
            complete(run, served, new, manifest, onnx=onnx, licences=licences or Licences())
        files.write_manifest(new, manifest)
    return folder


@torch.no_grad()
def export_model(model: Any, folder: Path, dtype: str = "float32") -> dict[str, Any]:
    """Writes what a model itself has: what recommends, what encodes texts, and what a training starts from.

    Args:
        model: in evaluation mode.
        folder: made where it is missing.
        dtype: of the vectors of items.

    Returns:
        ``served``, ``unserved`` and ``template`` of a manifest: what recommends, why nothing does, and how the fields
        of an item become a text.

    Raises:
        ConfigError: something is in the folder, or it cannot be written.
        ModelError: the model does not stand alone, and no training can start from it either.
    """
    check_new(folder, "export")
    return _write_model(model, *_served(model), folder, dtype)


def _served(model: Any, needed: bool = True) -> tuple[Served | None, str | None]:
    """What recommends, or why nothing does.

    Args:
        needed: raise the error where nothing does; if a training can start from the model it never is.
    """
    try:
        return served_of(model), None
    except ModelError as error:
        if needed and not isinstance(model, Exports):
            raise
        return None, str(error)


def _write_model(model: Any, served: Served | None, unserved: str | None, folder: Path, dtype: str) -> dict[str, Any]:
    described: dict[str, Any] = {"served": None, "unserved": unserved, "template": None}
    with writing(folder, "export"):
        folder.mkdir(parents=True, exist_ok=True)
        if served is not None:
            described["served"] = files.write_served(served, folder, dtype)
        side = model.text_side() if isinstance(model, ReadsTexts) else None
        if side is not None:
            write_sentence_folder(side, folder / files.ITEM_ENCODER)
            described["template"] = asdict(side.template)
        if isinstance(model, Exports):
            part = model.training_part(side)
            if served is None:
                logger.warning("export: a training can start from %s, and it recommends nothing: %s", folder, unserved)
                files.write_user_llm(part.user_llm, folder)
            files.write_training(folder, part.kind, part.weights, part.facts)
    return described


def _items(run: Run) -> tuple[list[str], list[dict[str, str]]]:
    """Ids of the items, and their text fields as the item table has them."""
    data, config = run.dataset, run.config
    ids = list(map(str, data.field2id_token[data.iid_field]))
    path = find_table(Path(config["data_path"]) / f"{config['dataset']}.item")
    if not path.exists():
        return ids[1:], [{} for _ in ids[1:]]
    reading = {"field_separator": config["field_separator"], "encoding": config["encoding"] or "utf-8"}
    header = read_header(path, *reading.values())
    keys = config["text_keys"] or [name for name, kind in header.items() if kind.value == "token_seq"]
    keys = [keys] if isinstance(keys, str) else list(keys)
    if not keys:
        return ids[1:], [{} for _ in ids[1:]]
    texts = read_item_texts(path, keys, ids, data.iid_field, **reading)
    shown = [dict(zip(keys, values, strict=True)) for values in texts.fields]
    return ids[1:], shown[1:]


def _histories(run: Run) -> files.UserHistories:
    """All that each user has, the oldest first."""
    data = run.dataset
    users, numbers = data.latest_sequences()
    sequences, offsets = data.sequences, data.sequences.offsets
    parts = [slice(offsets[number], offsets[number + 1]) for number in numbers]
    items = np.concatenate([sequences.items[part] for part in parts]).astype(np.int64)
    times = np.concatenate([sequences.timestamps[part] for part in parts]).astype(np.float64)
    lengths = np.array([part.stop - part.start for part in parts])
    ids = list(map(str, data.id2token(data.uid_field, users)))
    return files.UserHistories.of(ids, *map(torch.from_numpy, (items, times, np.concatenate([[0], lengths.cumsum()]))))
