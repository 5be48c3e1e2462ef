"""Settings of models trained and tested on labelled interactions, checked before any data is read."""

from pathlib import Path
from typing import Any

from recbole.utils import InputType, ModelType

from recbole_hllm.data.files.formats import read_header
from recbole_hllm.data.protocol import TRAINED_ON, check_ratios
from recbole_hllm.errors import ConfigError


def check_labelled_settings(model: str, keys: dict[str, Any]) -> None:
    """Whether a config's keys fit labelled rows.

    Raises:
        ConfigError: a wrong ``threshold``, another split than in time order, sampled or masked items, or targets
            evaluated together.
    """
    read_threshold(keys)
    if isinstance(keys["eval_args"], dict):  # RecBole refuses anything else
        chosen_ratios(keys["eval_args"])
    if keys["train_neg_sample_args"] is not None:
        raise ConfigError(f"train_neg_sample_args: {model} trains on labelled rows, which bring their own negatives")
    for key, everything in TRAINED_ON.items():
        if keys[key] != everything:
            raise ConfigError(f"{key}: {model} trains on all labelled rows of all users; leave it out")
    if keys["mask_history"]:
        raise ConfigError(f"mask_history: {model} scores labelled rows, of which none is masked")
    if keys["eval_targets"] == "together":
        raise ConfigError(f"eval_targets: {model} scores labelled rows one by one, none together")


def reads_labels(config: Any) -> bool:
    """Whether a run uses 0/1 labels: on labelled rows, and in RecBole's pointwise models where no negatives are drawn.

    Args:
        config: the run's Config.
    """
    pointwise = config["MODEL_INPUT_TYPE"] == InputType.POINTWISE and config.spec.model.type == ModelType.GENERAL
    undrawn = config["train_neg_sample_args"]["distribution"] == "none"
    return config.spec.rows.labelled or (pointwise and undrawn)


def read_threshold(keys: Any) -> tuple[str, float | None]:
    """The column that labels come from, and the least value that counts as 1; None for a column of labels.

    Raises:
        ConfigError: ``threshold`` is not one column and a number.
    """
    threshold = keys["threshold"]
    if threshold is None:
        return keys["LABEL_FIELD"], None
    pairs = list(threshold.items()) if isinstance(threshold, dict) else []
    if len(pairs) != 1 or isinstance(pairs[0][1], bool) or not isinstance(pairs[0][1], (int, float)):
        raise ConfigError(f"threshold: {threshold!r} is not one column and a number, such as {{'rating': 4}}")
    return pairs[0]


def has_label_column(path: Path, keys: Any) -> bool:
    """Whether the interaction file has the column ``LABEL_FIELD``; False without a file."""
    return path.exists() and keys["LABEL_FIELD"] in read_header(path, keys["field_separator"], keys.get("encoding"))


def chosen_ratios(eval_args: dict[str, Any]) -> list[float]:
    """Shares of training, validation and test interactions.

    Raises:
        ConfigError: another split than by ratio over all users in time order, or another mode than ``labeled``.
    """
    split, mode, group_by = eval_args.get("split"), eval_args.get("mode"), str(eval_args.get("group_by")).lower()
    ratios = split["RS"] if isinstance(split, dict) and list(split) == ["RS"] else None
    labeled = all(one == "labeled" for one in (mode.values() if isinstance(mode, dict) else [mode]))
    if ratios is None or eval_args.get("order") != "TO" or group_by != "none" or not labeled:
        raise ConfigError(
            f"eval_args: {eval_args}: labelled rows are split over all users in time order: {{'split': {{'RS': [0.8, "
            "0.1, 0.1]}, 'order': 'TO', 'group_by': 'none', 'mode': 'labeled'}"
        )
    check_ratios("RS", ratios)
    return [ratio / sum(ratios) for ratio in ratios]
