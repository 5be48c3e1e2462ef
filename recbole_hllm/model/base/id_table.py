"""The item table of a model of ids that was trained before: from a run folder, or from a checkpoint of RecBole's."""

import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.recbole_checkpoint import read_recbole_weight

# RecBole's name for it, in SASRec, GRU4Rec and most others.
_NAME = "item_embedding.weight"
# What of a run's protocol says that its item ids, and what it was trained on, are ours.
_MUST_AGREE = ("item_ids", "training", "training_labels", "history_filter")


def read_id_table(path: str | Path, key: str, width: int, dataset: Any) -> Tensor:
    """(n_items, width) float32, a row for each item of the data set; the padding item's is 0.

    Args:
        path: folder of a finished run of SASRec or another model with ``item_embedding``; or RecBole's own ``.pth``,
            which says neither which items its rows are nor what it was trained on.
        key: the key that names it, for errors.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: nothing there, or the table of other items, other training data or another width.
        ModelError: a damaged file.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        check_same_training(path, key, dataset)
        table = _from_run(path / "best" / "weights.safetensors", key)
    elif path.is_file():
        table = read_recbole_weight(path, _NAME, key)
    else:
        raise ConfigError(f"{key}: there is nothing at {path}; give the folder of a run of SASRec, or RecBole's .pth")
    if table is None or table.dim() != 2:
        raise ConfigError(f"{key}: {path} has no {_NAME}; take a model of ids, such as SASRec")
    if len(table) != dataset.item_num:
        raise ConfigError(
            f"{key}: {path} has {len(table)} rows, and {dataset.dataset_name} {dataset.item_num} items (padding "
            "included); it is of other data, or filtered differently"
        )
    if table.shape[1] != width:
        raise ConfigError(f"{key}: rows of {path} have {table.shape[1]} numbers; set item_embed_dim: {table.shape[1]}")
    table = table.float().clone()
    table[0] = 0  # RecBole leaves random numbers there
    return table


def check_same_training(folder: Path, key: str, dataset: Any, other_items: bool = False) -> None:
    """Raises ConfigError for a run of other items, unless these are allowed, or of other training data: what was
    trained on items that are to be predicted would make every result wrong; ModelError for a damaged one."""
    if not (folder / "protocol.json").is_file():
        raise ConfigError(f"{key}: {folder} is no folder of a finished run: it has no protocol.json")
    try:
        theirs = json.loads((folder / "protocol.json").read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{key}: {folder / 'protocol.json'} is damaged: {error}") from error
    ours = fingerprint(dataset, {}, {})
    if other_items and theirs.get("item_ids") != ours["item_ids"]:
        logging.getLogger().warning(
            f"{key}: {folder} was trained on other items; whether what is to be predicted here was among what it was "
            "trained on is not checked"
        )
        return
    differing = [name for name in _MUST_AGREE if name in ours and theirs.get(name) != ours[name]]
    if differing:
        raise ConfigError(
            f"{key}: {folder} was trained on other data than this run: its {' and '.join(differing)} differ (data set, "
            "filters, split, labels)"
        )


def _from_run(file: Path, key: str) -> Tensor | None:
    try:
        with safe_open(file, framework="pt") as weights:
            return weights.get_tensor(f"model.{_NAME}") if f"model.{_NAME}" in weights.keys() else None
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{key}: {file} is missing or damaged: {error}") from error
