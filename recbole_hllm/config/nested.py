"""Keys whose values are dicts or names of columns: which parts they have, and what an empty part means."""

from collections.abc import Sequence
from typing import Any

from recbole_hllm.errors import ConfigError, did_you_mean

# The parts of RecBole's dicts, and torch's arguments of clip_grad_norm_.
_PARTS = {
    "eval_args": ("split", "order", "group_by", "mode"),
    "eval_args: split": ("LS", "RS", "TS"),
    "eval_args: mode": ("valid", "test"),
    "train_neg_sample_args": ("distribution", "sample_num", "alpha", "dynamic", "candidate_num"),
    "clip_grad_norm": ("max_norm", "norm_type", "error_if_nonfinite", "foreach"),
}
# File -> its columns; and the files that RecBole has.
_COLUMNS_OF_FILES = ("load_col", "unload_col", "unused_col")
_FILES = ("inter", "user", "item", "kg", "link", "net")
# Column -> something, with an example.
_OF_COLUMNS = {
    "seq_len": "{'title': 10}",
    "val_interval": "{'rating': '[4,inf)'}",
    "preload_weight": "{'item_id': 'item_vector'}",
    "discretization": "{'price': {'method': 'ED', 'bucket': 10}}",
}
_DISCRETIZATION = ("method", "bucket")
# Lists of columns; a single name will do.
COLUMN_LISTS = ("numerical_features", "normalize_field", "alias_of_user_id", "alias_of_item_id")
_TRANSFORMS = ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")


def read_nested(given: dict[str, Any], where: dict[str, str]) -> dict[str, Any]:
    """All keys and values, nested ones without their empty parts, which count as not given.

    Empty is a word of its own in ``eval_args`` (``group_by``) and for the ``distribution`` of negatives.

    Args:
        where: key -> what an error says of its place, such as `` in FILE``.

    Raises:
        ConfigError: a part that is not one of the key's, or a value of another shape.
    """
    further = "additional_feat_suffix"
    files = (*_FILES, *_names(further, given.get(further) or [], where.get(further, "")))
    return {key: _read(key, value, files, where.get(key, "")) for key, value in given.items()}


def _read(key: str, value: Any, files: Sequence[str], where: str) -> Any:
    if value is None:
        return [] if key == "numerical_features" else None  # RecBole's code counts on a list
    if key in COLUMN_LISTS:
        return _names(key, value, where)
    if key == "transform" and value not in _TRANSFORMS:
        hint = did_you_mean(str(value), _TRANSFORMS)
        raise ConfigError(f"{key}{where}: {value!r} is not one of {', '.join(_TRANSFORMS)}{hint}")
    if key in _COLUMNS_OF_FILES or key in _OF_COLUMNS:
        example = _OF_COLUMNS.get(key, "{'item': ['item_id', 'title']}")
        if not isinstance(value, dict):
            raise ConfigError(f"{key}{where}: {value!r} is not a dict such as {example}")
    if key not in _READERS or not isinstance(value, dict):  # of others RecBole says what they should be
        return value
    return _READERS[key](key, value, files, where)


def _known(key: str, value: Any, parts: Any, where: str) -> None:
    for part in value:
        if part not in parts:
            hint = did_you_mean(str(part), parts) or f"; there are {', '.join(parts)}"
            raise ConfigError(f"{key}{where}: unknown key '{part}'{hint}")


def _filled(value: Any) -> dict[str, Any]:
    return {part: given for part, given in value.items() if given is not None}


def _read_eval_args(key: str, value: Any, _: Any, where: str) -> Any:
    _known(key, value, _PARTS[key], where)
    for part in ("split", "order", "mode"):
        if part in value and value[part] is None:
            raise ConfigError(f"{key}{where}: {part} must not be empty; leave it out for the default")
        if f"{key}: {part}" in _PARTS and isinstance(value.get(part), dict):
            _known(f"{key}: {part}", value[part], _PARTS[f"{key}: {part}"], where)
            value = {**value, part: _filled(value[part])}
    return value


def _read_negatives(key: str, value: Any, _: Any, where: str) -> Any:
    _known(key, value, _PARTS[key], where)
    for part, least in (("sample_num", 1), ("candidate_num", 0)):
        number = value.get(part)
        if number is not None and (type(number) is not int or number < least):
            raise ConfigError(f"{key}{where}: {part}: {number!r} is not a whole number of at least {least}")
    if value.get("alpha") is not None and type(value["alpha"]) not in (int, float):
        raise ConfigError(f"{key}{where}: alpha: {value['alpha']!r} is not a number")
    if value.get("dynamic") not in (None, True, False):
        raise ConfigError(f"{key}{where}: dynamic: {value['dynamic']!r} is neither True nor False")
    if value.get("dynamic") and not value.get("candidate_num"):
        raise ConfigError(f"{key}{where}: dynamic: True needs candidate_num, how many are drawn for each negative")
    kept = {"distribution": None} if value.get("distribution", ...) is None else {}
    return {**_filled(value), **kept}


def _read_clipping(key: str, value: Any, _: Any, where: str) -> Any:
    _known(key, value, _PARTS[key], where)
    for part in ("max_norm", "norm_type"):
        number = value.get(part)
        if isinstance(number, bool) or not isinstance(number, (int, float, type(None))):
            raise ConfigError(f"{key}{where}: {part}: {number!r} is not a number")
        if part == "max_norm" and number is not None and not number > 0:
            raise ConfigError(f"{key}{where}: {part}: {number!r} must be above 0")
    if value and value.get("max_norm") is None:
        raise ConfigError(f"{key}{where}: max_norm must be given, such as {{'max_norm': 5}}")
    return _filled(value)


def _read_files(key: str, value: Any, files: Sequence[str], where: str) -> Any:
    _known(key, value, files, where)
    return {file: columns if columns == "*" else _names(f"{key}: {file}", columns, where)
            for file, columns in _filled(value).items()}  # fmt: skip


def _read_of_columns(key: str, value: Any, _: Any, where: str) -> Any:
    value = _filled(value)
    for column, given in value.items():
        if key == "seq_len" and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise ConfigError(f"{key}{where}: {column}: {given!r} is not a number of words, at least 1")
        if key == "discretization":
            if not isinstance(given, dict) or "method" not in given:
                raise ConfigError(f"{key}{where}: {column}: {given!r} is not a dict such as {{'method': 'LD'}}")
            _known(f"{key}: {column}", given, _DISCRETIZATION, where)
            if given["method"] == "ED" and (type(given.get("bucket")) is not int or given["bucket"] < 1):
                raise ConfigError(f"{key}{where}: {column}: bucket must be a whole number of at least 1")
    return value


def _names(key: str, value: Any, where: str) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{key}{where}: {value!r} is neither a name nor a list of names")
    return names


_READERS = {
    "eval_args": _read_eval_args,
    "train_neg_sample_args": _read_negatives,
    "clip_grad_norm": _read_clipping,
    **dict.fromkeys(_COLUMNS_OF_FILES, _read_files),
    **dict.fromkeys(_OF_COLUMNS, _read_of_columns),
}
