"""A finished run -> a folder that recommends without RecBole and without data."""

from pathlib import Path

import numpy as np
import torch

import recbole_hllm
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.files.formats import find_table, read_header
from recbole_hllm.data.texts.item_texts import read_item_texts
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.served_model import served_of
from recbole_hllm.runs.run import Run
from recbole_hllm.serving import folder as files
from recbole_hllm.storage.files import writing


@torch.no_grad()
def export(run: Run, folder: str | Path, *, histories: bool = False, dtype: str = "float32") -> Path:
    """Writes what recommends, the items with their texts, and the language model of the items where there is one.

    Args:
        run: from ``load_run``.
        folder: a new or empty one.
        histories: write the history of every user, too, so that users can be asked for by their id.
        dtype: of the vectors of items: float32, bfloat16 or int8.

    Returns:
        The folder.

    Raises:
        ConfigError: something is in the folder, or it cannot be written.
        ModelError: the model cannot stand alone; see ``served_of``.
    """
    folder, model = Path(folder).expanduser(), run.model.eval()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"export: {folder} is not empty; name a new folder")
    served = served_of(model)
    ids, fields = _items(run)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        described = files.write_served(served, folder, dtype)
        files.write_items(folder, ids, fields)
        if histories:
            files.write_histories(folder, _histories(run))
        files.write_manifest(
            folder,
            {
                "program": f"recbole-hllm {recbole_hllm.__version__}",
                "model": RunKeys.of(run.config).model,
                "dataset": RunKeys.of(run.config).dataset,
                "served": described,
                "template": None,
            },
        )
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
