"""Rows of an item file by internal item id: found once, read where they are asked for.

A catalogue of long texts takes more memory as Python objects than everything else of a run. Of a file of lines only the
byte is kept at which each item's line begins; of other formats the text columns, as bytes.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import pandas as pd

from recbole_hllm.data.files.formats import is_atomic, parts_of, read_table
from recbole_hllm.data.files.reader import codec_of, line_of, undecodable
from recbole_hllm.errors import DataError, did_you_mean

Row = tuple[str, ...]
State = list[tuple[int, int]]

_COMPRESSED = (".gz", ".zst")


class ItemFile:
    """How the rows of an item file are found and read.

    Args:
        path: a table of items.
        columns: its columns, in file order.
        item_field: the column of the item's id.
        text_keys: the columns to read.
        separator, encoding: of a file of lines.

    Raises:
        DataError: there is no such column.
    """

    def __init__(
        self, path: Path, columns: list[str], item_field: str, text_keys: Row, separator: str, encoding: str
    ) -> None:
        self.path, self.columns, self.separator, self.encoding = path, columns, separator, encoding
        self.item_column = _find_column(path, columns, item_field, "the item column")
        self.text_columns = [_find_column(path, columns, key, "text_keys") for key in text_keys]
        self.item_field, self.text_keys = item_field, text_keys
        codec = codec_of(encoding)
        self.codec = "utf-8" if codec == "utf-8-sig" else codec  # a byte order mark is in line 1 only
        self.of_lines = is_atomic(path) and path.suffix not in _COMPRESSED and "\n".encode(self.codec) == b"\n"

    def find(self, item_tokens: Sequence[str]) -> np.ndarray:
        """int64 (n_items,): where each item's row is, for ``rows``; -1 for items without one and the padding item 0.

        Raises:
            DataError: the file is malformed; the message names line and column.
        """
        id_of = {str(token): item for item, token in enumerate(item_tokens) if item > 0}
        places: np.ndarray = np.full(len(item_tokens), -1, np.int64)
        first_line: dict[str, int] = {}
        for number, place, token in self._lines() if self.of_lines else self._table_rows():
            first = first_line.setdefault(token, number)
            if first != number:
                raise DataError(
                    f"{self.path}, line {number}: item '{token}' (column '{self.item_field}') already has a row in "
                    f"line {first}. Keep one row per item."
                )
            item = id_of.get(token)
            if item is not None:
                places[item] = place
        if not first_line:
            raise DataError(f"{self.path}: the file has a header but no item. Write one line per item.")
        return places

    def rows(self, places: np.ndarray, state: State) -> Sequence[Row]:
        """The text columns of each item, by id; empty texts where it has no row.

        Args:
            places: from ``find``.
            state: from ``state_of`` before the places were found.
        """
        return _LinesByItem(self, places, state) if self.of_lines else _TableByItem(self, places, state)

    def _lines(self) -> Iterator[tuple[int, int, str]]:
        """(line number, byte where it begins, item) of each line after the header that is not blank. Only a line feed
        ends a line: texts may hold U+2028."""
        separators = len(self.columns) - 1
        with open(self.path, "rb") as file:
            place = len(file.readline())
            for number, raw in enumerate(file, 2):
                line = self._decoded(raw)
                if line:
                    if line.count(self.separator) != separators:
                        raise self._wrong_columns(number, line)
                    yield number, place, line.split(self.separator, self.item_column + 1)[self.item_column]
                place += len(raw)

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode(self.codec).rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise undecodable(self.path, error) from error

    def _wrong_columns(self, number: int, line: str) -> DataError:
        return DataError(
            f"{self.path}, line {number}: {line.count(self.separator) + 1} columns, but the header has "
            f"{len(self.columns)} ({', '.join(self.columns)}). Remove separators and line breaks from inside the "
            "values."
        )

    def _table_rows(self) -> Iterator[tuple[int, int, str]]:
        items = self._table([self.item_field])[self.item_field]
        for place, (label, item) in enumerate(zip(items.index, _texts(items), strict=True)):
            yield line_of(label), place, item

    def cells(self, raw: bytes) -> Row:
        """The text columns of a line."""
        cells = self._decoded(raw).split(self.separator)
        return tuple(cells[column] for column in self.text_columns)

    def table(self) -> list["_Column"]:
        """The text columns of a file that is not of lines."""
        table = self._table(list(dict.fromkeys(self.text_keys)))
        return [_Column(_texts(table[key])) for key in self.text_keys]

    def _table(self, columns: list[str]) -> pd.DataFrame:
        return read_table(self.path, columns, self.separator, self.encoding, ids=[self.item_field], texts=columns)


def state_of(path: Path) -> State:
    """Bytes and time of change of a file, or of each part of a folder: others say that it was changed."""
    return [_state(os.stat(part)) for part in parts_of(path)]


def _state(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


class _ByItem(Sequence[Row]):
    """Rows by item id, read when they are asked for.

    Raises:
        DataError: the file was changed after the places were found.
    """

    def __init__(self, file: ItemFile, places: np.ndarray, state: State) -> None:
        self.file, self.places, self.state = file, places, state

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, item: int) -> Row: ...

    @overload
    def __getitem__(self, item: slice) -> list[Row]: ...

    def __getitem__(self, item: int | slice) -> Row | list[Row]:
        if isinstance(item, slice):
            return [self._row(int(place)) for place in self.places[item]]
        return self._row(int(self.places[item]))

    def _row(self, place: int) -> Row:
        return self._read(place) if place >= 0 else ("",) * len(self.file.text_keys)

    def _read(self, place: int) -> Row:
        raise NotImplementedError

    def _check(self, state: State) -> None:
        if state != self.state:
            raise DataError(f"{self.file.path} was changed while its texts were read; start again")


class _LinesByItem(_ByItem):
    """Of a file of lines, which stays open; in each process by itself, since forked ones share the place in it."""

    _open: BinaryIO | None = None
    _process: int | None = None

    def _read(self, place: int) -> Row:
        if self._open is None or self._process != os.getpid():
            self._open, self._process = open(self.file.path, "rb"), os.getpid()
        self._check([_state(os.fstat(self._open.fileno()))])
        self._open.seek(place)
        return self.file.cells(self._open.readline())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}


class _TableByItem(_ByItem):
    """Of a file of another format, whose text columns are read at the first question."""

    _columns: list["_Column"] | None = None

    def _read(self, place: int) -> Row:
        if self._columns is None:
            self._columns = self.file.table()
            self._check(state_of(self.file.path))
        return tuple(column.text(place) for column in self._columns)


class _Column:
    """Texts one after the other, as bytes."""

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        self.bounds = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(encoded) + 1)
        self.bytes = b"".join(encoded)

    def text(self, row: int) -> str:
        return self.bytes[self.bounds[row] : self.bounds[row + 1]].decode("utf-8", "surrogatepass")


def _texts(column: "pd.Series[Any]") -> Iterator[str]:
    return map(_as_text, column.astype(object).fillna(""))


def _as_text(cell: object) -> str:
    """Of lists with blanks between their elements; of numbers, which other formats than text have, without ``.0``."""
    if isinstance(cell, np.ndarray):
        return " ".join(map(_as_text, cell.tolist()))
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _find_column(path: Path, columns: list[str], name: str, role: str) -> int:
    if name in columns:
        return columns.index(name)
    raise DataError(
        f"{path}, line 1: no column '{name}' ({role}){did_you_mean(name, columns)}; there are {', '.join(columns)}"
    )
