"""Files of lines with separated cells, such as CSV, as blocks of text columns.

Blocks of lines without quotation marks are parsed by Arrow, others by Python's csv module: both read the same cells,
and the second knows the line of each row, of one that spans several, too, and what is wrong with it.
"""

import csv
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv

from recbole_hllm.data.raw.blocks import Block, shortened, texts
from recbole_hllm.data.raw.files import Progress, RawFile
from recbole_hllm.data.raw.report import Report
from recbole_hllm.errors import ConfigError, DataError

# Arrow and csv know separators of one character only; this one stands for a longer one, and is in no text.
_STAND_IN = "\x1f"
# Bytes of a quoted cell at most: what is longer has no end.
_LONGEST = 1 << 24


def header_of(file: RawFile, separator: str = ",", encoding: str = "utf-8") -> list[str]:
    """The cells of the first line; none of an empty file.

    Raises:
        DataError: the file cannot be read.
    """
    line = file.first_line().decode(encoding, "replace")
    if len(separator) > 1:
        line, separator = line.replace(separator, _STAND_IN), _STAND_IN
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error as error:
        raise DataError(f"{file.name}, line 1: {error}") from error


class Delimited:
    """How a file of separated cells is read.

    Args:
        file: the raw file.
        columns: names of the columns of a file without a header; None: its first line has them.
        separator: one character, or several.
        encoding: of the text.
        quoted: a cell in quotation marks may hold separators and line breaks.
        progress: called with the number of bytes read.

    Raises:
        ConfigError: there is no such encoding.
        DataError: the header cannot be read or names a column twice.
    """

    def __init__(
        self, file: RawFile, columns: Sequence[str] | None = None, separator: str = ",", encoding: str = "utf-8",
        quoted: bool = True, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        _check_encoding(encoding)
        self.file, self.encoding, self.quoted, self.progress = file, encoding, quoted, progress
        self._long = separator if len(separator) > 1 else ""
        self.separator = _STAND_IN if self._long else separator
        self.has_header = columns is None
        self.columns = header_of(file, separator, encoding) if columns is None else list(columns)
        if not self.columns:
            raise DataError(f"{file.name} is empty, or its first line is: it must name the columns")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise DataError(f"{file.name}, line 1: column '{twice[0]}' occurs twice")

    def blocks(self, wanted: dict[str, str], report: Report) -> Iterator[Block]:
        """Some columns, under other names.

        Args:
            wanted: name in the file -> name in the blocks.
            report: counts the rows, and the lines that are no rows.

        Raises:
            DataError: there is no such column, or the file cannot be read; a malformed line while the report is strict.
        """
        for name in wanted:
            if name not in self.columns:
                raise DataError(f"{self.file.name}, line 1: no column '{name}' (there are: {', '.join(self.columns)})")
        source = self._lines()
        for first, data in source:
            block = self._at_once(first, data, wanted) or self._row_by_row(first, data, source, wanted, report)
            report.rows += len(block)
            if len(block):
                yield block

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Blocks of lines in UTF-8 with a separator of one character, without the header."""
        for first, data in self.file.lines(self.progress):
            if self.has_header and first == 1:
                first, data = 2, data.partition(b"\n")[2]
            if self.encoding.lower() not in ("utf-8", "utf8"):
                data = data.decode(self.encoding, "surrogateescape").encode("utf-8", "surrogateescape")
            if self._long:
                data = data.replace(self._long.encode(), _STAND_IN.encode())
            yield first, data

    def _at_once(self, first: int, data: bytes, wanted: dict[str, str]) -> Block | None:
        """Arrow's parser on lines that hold nothing special; None where one does."""
        rows = data.count(b"\n")
        lone = b"\r" in data and data.count(b"\r") != data.count(b"\r\n")
        if lone or (self.quoted and b'"' in data):
            return None
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                pyarrow.csv.ReadOptions(column_names=self.columns, use_threads=False, block_size=len(data) + 1),
                pyarrow.csv.ParseOptions(delimiter=self.separator, quote_char=False),
                pyarrow.csv.ConvertOptions(
                    include_columns=list(wanted), column_types=dict.fromkeys(self.columns, pa.string())
                ),
            )
        except pa.ArrowInvalid:
            return None
        if len(table) != rows:  # blank lines
            return None
        columns = {wanted[name]: table[name].combine_chunks() for name in wanted}
        return Block(self.file.name, np.arange(first, first + rows), columns)

    def _row_by_row(
        self, first: int, data: bytes, source: Iterator[tuple[int, bytes]], wanted: dict[str, str], report: Report
    ) -> Block:
        """The csv module on the lines of a block, and on those of the next where a cell goes on there."""
        lines = _Lines(first, data, source)
        csv.field_size_limit(_LONGEST)
        # Strict: after a quoted cell a separator follows, or else the quotation mark was not meant to open one.
        reader = csv.reader(
            lines,
            delimiter=self.separator,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            strict=True,
        )
        places = [self.columns.index(name) for name in wanted]
        numbers: list[int] = []
        rows: list[list[str]] = []
        while not lines.empty:
            lines.begin()
            row, problem = _next(reader)
            problem = (lines.ended and "a quotation mark without an end") or problem or self._problem(row)
            if problem:
                lines.back_to_second()
                report.refuse(self.file.name, lines.start, problem)
            elif row:
                numbers.append(lines.start)
                rows.append([row[place] for place in places])
        cells = zip(*rows, strict=True) if rows else ([] for _ in places)
        columns = {name: texts(column) for name, column in zip(wanted.values(), cells, strict=True)}
        return Block(self.file.name, np.array(numbers, np.int64), columns)

    def _problem(self, row: list[str]) -> str:
        """What is wrong with a row, empty if nothing is; a blank line is none."""
        if row and len(row) != len(self.columns):
            return f"{len(row)} columns, expected are {len(self.columns)} ({', '.join(self.columns)})"
        damaged = [cell for cell in row if any("\udc80" <= letter <= "\udcff" for letter in cell)]
        return f"{shortened(damaged[0])} is not valid {self.encoding}; see --encoding" if damaged else ""


def _check_encoding(encoding: str) -> None:
    """Raises ConfigError for one that does not exist, or whose line breaks are not those of ASCII."""
    try:
        if "\n".encode(encoding) == b"\n":
            return
    except LookupError:
        pass
    raise ConfigError(f"--encoding={encoding}: must be one whose line breaks are one byte, such as utf-8 or latin-1")


def _next(reader: Iterator[list[str]]) -> tuple[list[str], str]:
    """A row, and what is wrong with its lines."""
    try:
        return next(reader), ""
    except csv.Error as error:  # also of a quoted cell that seems to have no end
        return [], str(error)


class _Lines:
    """The lines of a block as texts, then, while a row goes on, those of the blocks that follow.

    Attributes:
        start: line at which the row begins.
        empty: the blocks read so far have no further line.
        ended: the row reaches the end of the file.
    """

    def __init__(self, first: int, data: bytes, source: Iterator[tuple[int, bytes]]) -> None:
        self.start, self._source = first, source
        self._taken: list[str] = []
        self._fill(data)

    def _fill(self, data: bytes) -> None:
        self._waiting = data.decode("utf-8", "surrogateescape").split("\n")[-2::-1]  # without the empty last one

    @property
    def empty(self) -> bool:
        return not self._waiting

    def begin(self) -> None:
        """A row begins."""
        self.start += len(self._taken)
        self._taken, self.ended = [], False

    def back_to_second(self) -> None:
        """All lines of the row but the first are to come again: they may be rows of their own."""
        self._waiting += self._taken[:0:-1]
        self._taken = self._taken[:1]

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if not self._waiting:
            try:
                self._fill(next(self._source)[1])
            except StopIteration:
                self.ended = True
                raise
        self._taken.append(self._waiting.pop())
        return self._taken[-1].removesuffix("\r") + "\n"
