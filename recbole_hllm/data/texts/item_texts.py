"""Item texts: the columns named in `text_keys` of `<name>.item`.

The file is read as plain tab-separated text, without quoting and without guessing types, so that a title
that starts with a quotation mark, or the title "None", stays what it is.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_hllm.data.files.formats import parts_of, read_header
from recbole_hllm.data.texts.item_rows import ItemFile, state_of
from recbole_hllm.errors import DataError
from recbole_hllm.storage.cache import digest, file_digest, read_arrays, write_arrays

logger = logging.getLogger(__name__)

FORMAT = 1  # of the cache; raise it when the places of rows mean something else

@dataclass(frozen=True)
class ItemTexts:
    """Raw fields of every item of the interactions.

    Args:
        keys: names of the fields (n_keys).
        fields: per internal item id, its n_keys values; all empty for items without a row and padding item 0. Those of
            a file are read from it when they are asked for.
        has_row: bool (n_items,), whether the item has a row in the file.
        content: hash of all that decides these; None where nobody knows it but by reading all texts.
    """

    keys: tuple[str, ...]
    fields: Sequence[tuple[str, ...]]
    has_row: np.ndarray
    content: str | None = None

    @property
    def without_row(self) -> int:
        """Number of real items that have no row."""
        return int(len(self.has_row) - 1 - self.has_row[1:].sum())


def read_item_texts(
    path: str | Path,
    text_keys: Sequence[str],
    item_tokens: Sequence[str],
    item_field: str = "item_id",
    field_separator: str = "\t",
    encoding: str = "utf-8",
    strict: bool = False,
    cache: Path | None = None,
) -> ItemTexts:
    """Finds the rows of an item file, aligned to the internal item ids.

    Args:
        path: `<name>.item`; its first line names the columns as `name:type`.
        text_keys: columns to read; a multi-valued `token_seq` column is text like any other.
        item_tokens: external item id per internal id; index 0 is the padding item.
        strict: refuse items that have no row instead of warning.
        cache: folder of the cache, where the rows' places are kept for this content of the file; None: nowhere.

    Raises:
        DataError: the file is missing, empty or malformed; the message names file, line and column. Or the cache cannot
            be written.
    """
    path, text_keys = Path(path), tuple(text_keys)
    if not path.exists():
        raise DataError(
            f"{path}: no such file. The texts of the items are needed; write them into this file, "
            f"tab-separated, with the header '{item_field}:token' and one 'name:token_seq' per text column."
        )
    state = state_of(path)
    columns = list(read_header(path, field_separator, encoding))
    file = ItemFile(path, columns, item_field, text_keys, field_separator, encoding)
    if cache is None:
        places, content = file.find(item_tokens), None
    else:
        places, found_in = _places(file, item_tokens, cache)
        content = digest(found_in, text_keys)
    texts = ItemTexts(text_keys, file.rows(places, state), places >= 0, content)
    _report_missing_rows(path, texts, item_tokens, strict)
    return texts


def _places(file: ItemFile, item_tokens: Sequence[str], cache: Path) -> tuple[np.ndarray, str]:
    """Where each item's row is, from the cache where it lies there, and a hash of all that decides it."""
    how = [file.columns, file.item_field, file.separator, file.encoding]
    files = [[part.name, file_digest(part)] for part in parts_of(file.path)]
    key = digest(how, files, list(map(str, item_tokens)))
    entry, meta = Path(cache) / f"items-{key}", {"format": FORMAT}
    arrays = read_arrays(entry, meta)
    if arrays is None or arrays.keys() != {"places"}:
        arrays = {"places": file.find(item_tokens)}
        write_arrays(entry, arrays, meta)
    return arrays["places"], key


def _report_missing_rows(path: Path, texts: ItemTexts, item_tokens: Sequence[str], strict: bool) -> None:
    if not texts.without_row:
        return
    missing = np.flatnonzero(~texts.has_row)
    examples = ", ".join(str(item_tokens[item]) for item in missing[missing > 0][:5])
    count = f"{texts.without_row} of {len(item_tokens) - 1}"
    message = f"{path}: {count} items of the interactions have no row: {examples}"
    if strict:
        raise DataError(f"{message}. Add their rows, or set strict_data: false to go on without their texts.")
    logger.warning("%s. They have no text of their own.", message)
