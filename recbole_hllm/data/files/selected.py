"""The feature columns that a model of RecBole reads: named by the user, or one that public data sets have."""

from pathlib import Path
from typing import Any

from recbole_hllm.data.files.float_columns import check_selected
from recbole_hllm.data.files.formats import read_header
from recbole_hllm.errors import ConfigError

# Columns that hold an item's category in public data sets, in order of preference.
_USUAL_FEATURES = ("class", "categories", "category", "genres", "genre", "brand", "tag", "tags")


def choose_selected(model: str, path: Path, keys: dict[str, Any], given: Any) -> list[str]:
    """Value of ``selected_features``: RecBole's default is the column of its own example.

    Args:
        model: name of the model.
        path: the table of the items.
        keys: those of the config.
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
    missing = [column for column in selected if column not in header]
    if missing or not selected:
        problem = f"which has no {', '.join(missing) or 'such column'}" if path.exists() else "which is missing"
        raise ConfigError(
            f"selected_features: {model} needs a feature column of {path}, {problem}; "
            f"token columns there: {', '.join(columns) or 'none'}"
        )
    check_selected(model, {column: header[column].value for column in selected}, keys["numerical_features"])
    return selected
