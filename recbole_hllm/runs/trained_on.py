"""The data that a run's weights are of.

Weights know users, items and the values of other columns by their numbers, which are given in the order of the files:
the same interactions in another order, or filtered otherwise, have other numbers. So a run's folder says what it was
trained on from its first step on, and a run that goes on or is read back is compared with it.
"""

import logging
from pathlib import Path
from typing import Any

from recbole.utils import ModelType

from recbole_hllm.data.protocol import token_digest, training_digest
from recbole_hllm.errors import ConfigError, Damaged
from recbole_hllm.processes import current
from recbole_hllm.storage.files import read_json, write_json

TRAINED_ON = "trained_on.json"
# What it says: a digest of the interactions to train on, and one of the numbers of each column that the model knows.
_TRAINING, _OF_COLUMN = "training", "numbers of "


def keep_trained_on(folder: Path, data: Any) -> None:
    """Writes what a new run is trained on, in the first process.

    Args:
        folder: of the run.
        data: the whole data set, after ``build``.
    """
    if current().is_first:
        write_json(folder / TRAINED_ON, _facts(data))


def check_trained_on(folder: Path, data: Any, goes_on: bool) -> None:
    """Compares the data of a run that is there with those that it was trained on; runs of earlier versions do not say.

    Args:
        goes_on: it is to be trained further, not to be evaluated.

    Raises:
        ConfigError: numbers of items differ, or those of other columns that the model knows; or what it was trained on,
            where it goes on. Else that is a warning.
        Damaged: the file that says so is.
    """
    began, now = _began(folder, data), _facts(data)
    if not began:
        return
    differing = [name.removeprefix(_OF_COLUMN) for name in began if name != _TRAINING and began[name] != now.get(name)]
    if differing:
        raise ConfigError(
            f"{folder}: the weights are of data with other numbers of {', '.join(differing)}: numbers follow the order "
            "of the files and the filters. Take the files and filters of the training, or train again"
        )
    if began.get(_TRAINING, now[_TRAINING]) != now[_TRAINING]:
        what = f"{folder}: the interactions to train on are not those of its training (data, filters, split)"
        if goes_on:
            raise ConfigError(f"{what}; go on with the same, or begin another run")
        logging.getLogger().warning(f"{what}: what is tested now may have been among them")


def _facts(data: Any) -> dict[str, str]:
    numbers = {_OF_COLUMN + name: token_digest(data, name) for name in _columns(data) if name in data.field2id_token}
    return {_TRAINING: training_digest(data), **numbers}


def _columns(data: Any) -> list[str]:
    """Those whose values the model knows by their numbers. One of sequences knows users by what they had."""
    kind, selected = data.config.spec.model.type, data.config["selected_features"] or []
    selected = [selected] if isinstance(selected, str) else selected
    if kind == ModelType.CONTEXT:
        return list(data.field2id_token)
    return [data.iid_field, *selected, *([data.uid_field] if kind != ModelType.SEQUENTIAL else [])]


def _began(folder: Path, data: Any) -> dict[str, Any]:
    """What a run was trained on; of one of an earlier version, which wrote no such file, what its protocol says."""
    if (folder / TRAINED_ON).is_file():
        return _read(folder / TRAINED_ON)
    kept = _read(folder / "protocol.json").get("fingerprint", {}) if (folder / "protocol.json").is_file() else {}
    names = {"training": _TRAINING, "item_ids": _OF_COLUMN + data.iid_field}
    return {name: kept[key] for key, name in names.items() if key in kept}


def _read(file: Path) -> dict[str, Any]:
    kept = read_json(file)
    if not isinstance(kept, dict):
        raise Damaged(f"{file} is damaged: it holds no names")
    return kept
