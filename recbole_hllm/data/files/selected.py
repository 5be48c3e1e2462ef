"""The feature columns that a model of RecBole reads: named by the user, or one that public data sets have."""

from pathlib import Path
from typing import Any

from recbole_hllm.data.files.float_columns import check_selected
from recbole_hllm.data.files.formats import read_header
from recbole_hllm.errors import ConfigError

# The key of S3Rec.
ITEM_ATTRIBUTE = "item_attribute"
# Columns that hold an item's category in public data sets, in order of preference.
_USUAL_FEATURES = ("class", "categories", "category", "genres", "genre", "brand", "tag", "tags")


def choose_selected(model: str, path: Path, keys: dict[str, Any], key: str, given: Any) -> list[str]:
    """Value of ``selected_features``, or the only column of ``item_attribute``: RecBole's default is the column of its
    own example.

    Args:
        model: name of the model.
        path: the table of the items.
        keys: those of the config.
        key: one of the two.
        given: what the user gives for the key; None for nothing.

    Raises:
        ConfigError: the table has no such column, or the model would not read it.
    """
    header = read_header(path, keys["field_separator"], keys.get("encoding")) if path.exists() else {}
    columns = [name for name, kind in header.items() if "token" in kind.value and name != keys["ITEM_ID_FIELD"]]
    selected = given
    if selected is None:
        selected = ([column for column in _USUAL_FEATURES if column in columns] + columns)[:1]
    selected = [selected] if isinstance(selected, str) else selected
    if not isinstance(selected, list) or not all(isinstance(column, str) for column in selected):
        raise ConfigError(f"{key}: {given!r} is neither the name of a column nor a list of them")
    missing = [column for column in selected if column not in header]
    if missing or not selected:
        problem = f"which has no {', '.join(missing) or 'such column'}" if path.exists() else "which is missing"
        raise ConfigError(
            f"{key}: {model} needs a feature column of {path}, {problem}; "
            f"token columns there: {', '.join(columns) or 'none'}"
        )
    kinds = {column: header[column].value for column in selected}
    if key == ITEM_ATTRIBUTE:
        _check_attribute(model, kinds, keys["ITEM_ID_FIELD"])
    else:
        check_selected(model, kinds, keys["numerical_features"])
    return selected


def _check_attribute(model: str, kinds: dict[str, str], item_id: str) -> None:
    """Raises ConfigError unless it is one column of tokens, other than the ids."""
    if len(kinds) != 1:
        raise ConfigError(f"{ITEM_ATTRIBUTE}: {model} reads one column, not {', '.join(kinds)}")
    (column, kind), *_ = kinds.items()
    if column == item_id:
        raise ConfigError(f"{ITEM_ATTRIBUTE}: '{column}' has the ids of the items: each would have its own")
    if not kind.startswith("token"):
        raise ConfigError(f"{ITEM_ATTRIBUTE}: '{column}' is a {kind} column, and {model} reads token or token_seq")
