"""Blocks of rows: columns of text with the line of each row, from lists of cells or from Arrow; ids and texts checked
and made fit for a file of lines and tabs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


@dataclass(frozen=True)
class Block:
    """Some rows of a raw file.

    Attributes:
        file: what messages call the file.
        lines: (rows,) the line, or the number of the row, from 1 on, that each was read from.
        columns: name -> (rows,) texts; null where there is none.
    """

    file: str
    lines: Sequence[int] | np.ndarray
    columns: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self, mask: pa.Array | np.ndarray) -> "Block":
        """The rows that a mask (rows,) of bools selects."""
        mask = pa.array(mask) if isinstance(mask, np.ndarray) else mask
        lines = np.asarray(self.lines)[mask.to_numpy(zero_copy_only=False)]
        return Block(self.file, lines, {name: column.filter(mask) for name, column in self.columns.items()})

    def only(self, good: pa.Array, report: Report, reason: Callable[[int], str]) -> "Block":
        """The good rows; the others are malformed lines.

        Args:
            good: (rows,) bools; null counts as False.
            reason: what is wrong with a row, by its place in the block.

        Raises:
            DataError: there is a bad row, and the report is strict.
        """
        mask = good.fill_null(False).to_numpy(zero_copy_only=False)
        if mask.all():
            return self
        for row in np.flatnonzero(~mask):
            report.refuse(self.file, int(self.lines[row]), reason(int(row)))
        return self.rows(mask)

    def with_column(self, name: str, column: pa.Array) -> "Block":
        """The same rows with a column replaced or added."""
        return replace(self, columns={**self.columns, name: column})


def with_ids(block: Block, name: str, report: Report) -> Block:
    """The rows whose id is not empty and can stand in a file of lines and tabs.

    Raises:
        DataError: one cannot, and the report is strict.
    """
    column = block.columns[name]
    good = pc.and_(pc.greater(pc.binary_length(column), 0), pc.invert(pc.match_substring_regex(column, _BREAKS)))

    def reason(row: int) -> str:
        value = column[row].as_py()
        return f"{name} {shortened(value)} holds a tab, a line break or a null" if value else f"{name} is empty"

    return block.only(good, report, reason)


def with_numbers(block: Block, name: str, report: Report) -> Block:
    """The rows whose cell is a number or empty, without blanks around it.

    Raises:
        DataError: one is not, and the report is strict.
    """
    column = pc.utf8_trim_whitespace(block.columns[name])
    good = pc.or_kleene(pc.match_substring_regex(column, NUMBER), pc.equal(column, "")).fill_null(True)
    return block.with_column(name, column).only(
        good, report, lambda row: f"{name} {shortened(column[row].as_py())} is not a number"
    )


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
    return Block(file, lines, {name: texts(column) for name, column in zip(columns, found, strict=True)})


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts as a column; halves of characters, which JSON can hold and UTF-8 cannot, are joined or replaced."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        whole = [value and value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for value in values]
        return pa.array(whole, pa.string())
