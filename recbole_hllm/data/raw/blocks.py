"""Blocks of rows: columns of text with the line of each row, from lists of cells or from Arrow; ids and texts checked
and made fit for a file of lines and tabs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.data.raw.report import Report

# What would end a cell or a line, or a text for a reader written in C.
_BREAKS = "[\t\r\n\\x00]"
_BLANKS = "[ \t\r\n\\x00]+"
# A decimal number.
NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_ROWS = 5_000


class Check(NamedTuple):
    """Which rows of a block are well formed.

    Attributes:
        good: (rows,) bools; null counts as False.
        reason: what is wrong with a row, by its place in the block.
    """

    good: pa.Array
    reason: Callable[[int], str]


@dataclass(frozen=True)
class Block:
    """Some rows of a raw file.

    Attributes:
        file: what messages call the file.
        lines: (rows,) the line, or the number of the row, from 1 on, that each was read from.
        columns: name -> (rows,) texts; null where there is none.
    """

    file: str
    lines: np.ndarray
    columns: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self, mask: pa.Array | np.ndarray) -> "Block":
        """The rows that a mask (rows,) of bools selects."""
        mask = pa.array(mask) if isinstance(mask, np.ndarray) else mask
        lines = self.lines[mask.to_numpy(zero_copy_only=False)]
        return Block(self.file, lines, {name: column.filter(mask) for name, column in self.columns.items()})

    def only(self, checks: Sequence[Check], report: Report) -> "Block":
        """The rows that pass every check; the others are malformed lines.

        Raises:
            DataError: one does not, and the report is strict.
        """
        passed = [check.good.fill_null(False).to_numpy(zero_copy_only=False) for check in checks]
        mask = np.logical_and.reduce(passed)
        if mask.all():
            return self
        for row in np.flatnonzero(~mask):
            failed = next(check for check, good in zip(checks, passed, strict=True) if not good[row])
            report.refuse(self.file, int(self.lines[row]), failed.reason(int(row)))
        return self.rows(mask)

    def with_column(self, name: str, column: pa.Array) -> "Block":
        """The same rows with a column replaced or added."""
        return replace(self, columns={**self.columns, name: column})


def id_check(block: Block, name: str) -> Check:
    """Whether ids are not empty and can stand in a file of lines and tabs."""
    column = block.columns[name]
    good = pc.and_(pc.greater(pc.binary_length(column), 0), pc.invert(pc.match_substring_regex(column, _BREAKS)))

    def reason(row: int) -> str:
        value = column[row].as_py()
        return f"{name} {shortened(value)} holds a tab, a line break or a null" if value else f"{name} is empty"

    return Check(good, reason)


def number_check(block: Block, name: str) -> Check:
    """Whether cells are numbers or empty."""
    column = block.columns[name]
    good = pc.or_kleene(pc.match_substring_regex(column, NUMBER), pc.equal(column, "")).fill_null(True)
    return Check(good, lambda row: f"{name} {shortened(column[row].as_py())} is not a number")


def trimmed(block: Block, name: str) -> Block:
    """The rows without blanks around a cell."""
    return block.with_column(name, pc.utf8_trim_whitespace(block.columns[name]))


def clean_text(column: pa.Array) -> pa.Array:
    """Texts with one blank for each run of blanks, tabs and line breaks; null where nothing else is left."""
    cleaned = pc.replace_substring_regex(column, _BLANKS, " ")
    return pc.if_else(pc.is_in(cleaned, pa.array(["", " "])), pa.scalar(None, pa.string()), cleaned)


def shortened(value: object) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def blocks_of(file: str, columns: Sequence[str], rows: Iterable[tuple[int, Sequence[Any]]]) -> Iterator[Block]:
    """Blocks of rows that come one by one.

    Args:
        file: what messages call the file.
        columns: their names.
        rows: line, and a cell of each column: a text or None.
    """
    lines: list[int] = []
    cells: list[Sequence[Any]] = []
    for line, row in rows:
        lines.append(line)
        cells.append(row)
        if len(lines) == _ROWS:
            yield _block(file, columns, lines, cells)
            lines, cells = [], []
    if lines:
        yield _block(file, columns, lines, cells)


def _block(file: str, columns: Sequence[str], lines: list[int], cells: list[Sequence[Any]]) -> Block:
    found = zip(*cells, strict=True)
    return Block(file, np.array(lines), {name: texts(column) for name, column in zip(columns, found, strict=True)})


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts as a column; halves of characters, which JSON can hold and UTF-8 cannot, are joined or replaced."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        whole = [value and value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for value in values]
        return pa.array(whole, pa.string())
