"""Item texts: the columns named in `text_keys` of `<name>.item`, and the template that joins them.

The file is read as plain tab-separated text, without quoting and without guessing types, so that a title
that starts with a quotation mark, or the title "None", stays what it is.
"""

import html
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_hllm.data.files.formats import is_atomic, read_header, read_table
from recbole_hllm.data.files.reader import codec_of, line_of, open_text, undecodable, unreadable
from recbole_hllm.errors import ConfigError, DataError, did_you_mean

logger = logging.getLogger(__name__)

# What pandas.read_csv takes for a missing value by default.
MISSING_WORDS = frozenset(
    ["#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"]
    + ["N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)

# Entities must end with a semicolon: html.unescape alone would turn "pen&notebook" into "pen¬ebook".
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def _unescape(text: str) -> str:
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


@dataclass(frozen=True)
class TextTemplate:
    """How the fields of an item become one text: the prompt, then each value that is not empty, after its key.

    Args:
        text_keys: names of the fields, in the order in which they are written.
        item_prompt: written before the fields.
        separator: written between two fields; the official HLLM code writes nothing.
        unescape_html: clean each value: entities (also escaped twice, `&amp;quot;`) become characters, runs
            of white space and control characters become one space; tags stay. False keeps the raw value.
        missing_words_dropped: leave out a value that pandas reads as missing ("None", "NA", "nan", ...),
            as the official code does by accident.
        field: how one field is written, with the places `{key}` and `{value}`; `{value}` alone leaves names out.

    Raises:
        ConfigError: `field` has no place for the value, or another place than these two.
    """

    text_keys: tuple[str, ...]
    item_prompt: str
    separator: str = ". "
    unescape_html: bool = True
    missing_words_dropped: bool = False
    field: str = "{key}: {value}"

    def __post_init__(self) -> None:
        try:
            fields_differ = self.field.format(key="", value="a") != self.field.format(key="", value="b")
        except (LookupError, ValueError, AttributeError):
            fields_differ = False
        if not fields_differ:
            raise ConfigError(
                f"text_field: {self.field!r} must hold {{value}} and may hold {{key}}, such as '{{key}}: {{value}}'; "
                "a brace that is meant as such is written twice"
            )

    def render(self, fields: Sequence[str]) -> str:
        """The text of one item; `fields` are its raw values in the order of `text_keys`."""
        values = (self._value(field) for field in fields)
        pairs = zip(self.text_keys, values, strict=True)
        written = (self.field.format(key=key, value=value) for key, value in pairs if value)
        return self.item_prompt + self.separator.join(written)

    def _value(self, field: str) -> str:
        if self.missing_words_dropped and field in MISSING_WORDS:
            return ""
        if not self.unescape_html:
            return field
        if "&" in field:
            field = _unescape(_unescape(field))
        return _BLANK.sub(" ", field).strip()


@dataclass(frozen=True)
class ItemTexts:
    """Raw fields of every item of the interactions.

    Args:
        keys: names of the fields (n_keys).
        fields: per internal item id, its n_keys values; all empty for items without a row and padding item 0.
        has_row: bool (n_items,), whether the item has a row in the file.
    """

    keys: tuple[str, ...]
    fields: Sequence[tuple[str, ...]]
    has_row: np.ndarray

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
) -> ItemTexts:
    """Reads the text columns of an atomic item file, aligned to the internal item ids.

    Args:
        path: `<name>.item`; its first line names the columns as `name:type`.
        text_keys: columns to read; a multi-valued `token_seq` column is text like any other.
        item_tokens: external item id per internal id; index 0 is the padding item.
        strict: refuse items that have no row instead of warning.

    Raises:
        DataError: the file is missing, empty or malformed; the message names file, line and column.
    """
    path, text_keys = Path(path), tuple(text_keys)
    if not path.exists():
        raise DataError(
            f"{path}: no such file. The texts of the items are needed; write them into this file, "
            f"tab-separated, with the header '{item_field}:token' and one 'name:token_seq' per text column."
        )
    columns = list(read_header(path, field_separator, encoding))
    item_column = _find_column(path, columns, item_field, "the item column")
    text_columns = [_find_column(path, columns, key, "text_keys") for key in text_keys]

    id_of = {str(token): item for item, token in enumerate(item_tokens) if item > 0}
    fields = [("",) * len(text_keys)] * len(item_tokens)
    has_row = np.zeros(len(item_tokens), dtype=bool)
    first_line: dict[str, int] = {}
    for number, cells in _rows(path, columns, field_separator, encoding):
        token = cells[item_column]
        first = first_line.setdefault(token, number)
        if first != number:
            raise DataError(
                f"{path}, line {number}: item '{token}' (column '{item_field}') already has a row in "
                f"line {first}. Keep one row per item."
            )
        item = id_of.get(token)
        if item is not None:
            fields[item] = tuple(cells[column] for column in text_columns)
            has_row[item] = True
    if not first_line:
        raise DataError(f"{path}: the file has a header but no item. Write one line per item.")

    texts = ItemTexts(text_keys, fields, has_row)
    _report_missing_rows(path, texts, item_tokens, strict)
    return texts


def _rows(path: Path, columns: list[str], separator: str, encoding: str) -> Iterator[tuple[int, Sequence[str]]]:
    """(line number, cells) of each row."""
    if not is_atomic(path):
        table = read_table(path, columns, separator, encoding, ids=columns)
        for label, cells in zip(table.index, table.astype(object).fillna("").to_numpy(), strict=True):
            yield line_of(label), [_as_text(cell) for cell in cells]
        return
    for number, line in _lines(path, encoding):
        cells = line.split(separator)
        if line and len(cells) != len(columns):
            raise DataError(
                f"{path}, line {number}: {len(cells)} columns, but the header has {len(columns)} "
                f"({', '.join(columns)}). Remove separators and line breaks from inside the values."
            )
        if line:
            yield number, cells


def _as_text(cell: object) -> str:
    return " ".join(map(str, cell)) if isinstance(cell, np.ndarray) else str(cell)


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """(line number, line without its end) after the header. Only a line feed ends a line: texts may hold U+2028."""
    try:
        with open_text(path, codec_of(encoding), newline="\n") as file:
            for number, line in enumerate(file, 1):
                if number > 1:
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise undecodable(path, error) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _find_column(path: Path, columns: list[str], name: str, role: str) -> int:
    if name in columns:
        return columns.index(name)
    raise DataError(
        f"{path}, line 1: no column '{name}' ({role}){did_you_mean(name, columns)}; there are {', '.join(columns)}"
    )


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
