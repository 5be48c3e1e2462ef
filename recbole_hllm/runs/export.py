"""A finished run -> a folder that recommends without RecBole and without data."""

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

import recbole_hllm
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.files.formats import find_table, read_header
from recbole_hllm.data.texts.item_texts import read_item_texts
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.servable import Servable
from recbole_hllm.runs.card_facts import Licences
from recbole_hllm.runs.export_parts import complete
from recbole_hllm.runs.run import Run
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.onnx_model import check_packages
from recbole_hllm.serving.quantised import DTYPES
from recbole_hllm.storage.folders import check_new, making


@torch.no_grad()
def export(
    run: Run,
    folder: str | Path,
    *,
    histories: bool = False,
    dtype: str = "float32",
    onnx: bool = False,
    licences: Licences | None = None,
) -> Path:
    """Writes what recommends, the items with their texts, the language model of the items where there is one, and a
    model card.

    Args:
        run: from ``load_run``.
        folder: a new or empty one; it is there once it is whole.
        histories: write the history of every user, too, so that users can be asked for by their id.
        dtype: of the vectors of items: float32, bfloat16 or int8; what the last two cost is measured with the run's
            test, and kept as ``quality``.
        onnx: write the user model as ONNX, too.
        licences: for the card.

    Returns:
        The folder.

    Raises:
        ConfigError: something is in the folder, or it cannot be written.
        ModelError: the model's scores are no products of vectors, or with its keys it does not stand alone; or it is
            not written as ONNX.
        MissingExtra: packages for ONNX are not installed.
    """
    folder, model = Path(folder).expanduser(), run.model.eval()
    if not isinstance(model, Servable):
        raise ModelError(
            f"{RunKeys.of(run.config).model} is not exported: its scores are no products of a user's vector and an "
            "item's; those of HLLM, LEARN, E4SRec, SLMRec, the SASRec family, HSTU and Blend are"
        )
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    check_new(folder, "export")
    if onnx:
        check_packages()
    served = model.served()
    ids, fields = _items(run)
    with making(folder, "export") as new:
        described = files.write_served(served, new, dtype)
        files.write_items(new, ids, fields)
        if histories:
            files.write_histories(new, _histories(run))
        manifest = {
            "program": f"recbole-hllm {recbole_hllm.__version__}",
            "exported": datetime.now(timezone.utc).isoformat(),
            "model": RunKeys.of(run.config).model,
            "dataset": RunKeys.of(run.config).dataset,
            "served": described,
            "template": None,
        }
        complete(run, new, manifest, onnx=onnx, licences=licences or Licences())
        files.write_manifest(new, manifest)
    return folder


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
