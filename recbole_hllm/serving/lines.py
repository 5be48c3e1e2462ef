"""Lines of a file of histories: checked, and made requests."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from recbole_hllm.errors import DataError, did_you_mean, naming
from recbole_hllm.serving.requests import Request

# Bounds of one line, so that no file, whoever made it, takes more memory than there is.
MOST_BYTES, MOST_ITEMS, MOST_WANTED = 2**20, 10_000, 10_000
# The same of a row group of Parquet, which is read at once.
_MOST_GROUP_BYTES, _MOST_GROUP_VALUES = 2**30, 2**27

_LAST_SECOND = 2**53  # of whole numbers that a float has

_SUCH_AS = '{"user": "7", "items": ["12"]}'

_LISTS = ("items", "texts", "times", "exclude", "among")
_FIELDS = ("id", "user", *_LISTS, "at", "k", "filter_seen")


class Line(NamedTuple):
    """One history of a file.

    Attributes:
        number: of the line or row, from 1.
        content: as it stands there.
    """

    number: int
    content: Any


class Place(NamedTuple):
    """How far a file was read.

    Attributes:
        lines: how many, blank ones too.
        bytes: where the next one begins, of JSON lines.
    """

    lines: int = 0
    bytes: int = 0


class Lines:
    """Histories of a file, some at a time, from any place on.

    Args:
        path: ending in .jsonl or .parquet.

    Raises:
        DataError: there is no such file, or it is no Parquet.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
        self.path, self._table = path, _parquet(path) if path.suffix == ".parquet" else None

    @property
    def total(self) -> int:
        """Rows of Parquet, bytes of JSON lines."""
        return self.path.stat().st_size if self._table is None else self._table.metadata.num_rows

    def done(self, place: Place) -> int:
        """How much of the total a place is."""
        return place.bytes if self._table is None else place.lines

    def batches(self, place: Place, at_once: int) -> Iterator[tuple[list[Line], Place]]:
        """Lines from a place on, and the place behind them.

        Raises:
            DataError: a line is too long, or no JSON.
        """
        read = json_lines(self.path, place) if self._table is None else _rows(self.path, self._table, place)
        while batch := list(islice(read, at_once)):
            yield [line for line, _ in batch if line.content is not None], batch[-1][1]


def json_lines(
    path: Path, place: Place, holds: str = "history", such_as: str = _SUCH_AS
) -> Iterator[tuple[Line, Place]]:
    """Each line of a file of JSON lines, its content None where it is blank, and the place behind it.

    Args:
        path, place: the file, and where to begin.
        holds, such_as: what a line is, and a right one, for errors.

    Raises:
        DataError: one is too long, or no JSON.
    """
    with path.open("rb") as file:
        file.seek(place.bytes)
        number = place.lines
        while text := file.readline(MOST_BYTES + 1):
            number += 1
            with naming(f"{path}, line {number}"):
                content = _json(text, number == 1, holds, such_as)
            yield Line(number, content), Place(number, file.tell())


def _json(text: bytes, first: bool, holds: str, such_as: str) -> Any:
    if len(text) > MOST_BYTES:
        raise DataError(f"it has more than {MOST_BYTES:,} bytes; one line holds one {holds}")
    try:
        words = text.decode("utf-8-sig" if first else "utf-8").strip()
        if not words:
            return None
        content = json.loads(words)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is no JSON ({error}); a line is such as {such_as}") from error
    if content is None:
        raise DataError(f"it is null, and no {holds}")
    return content


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file, or damaged: {error}") from error
    _refuse_unknown(table.schema_arrow.names, f"{path}: ")
    for place in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(place)
        columns = [group.column(number) for number in range(group.num_columns)]
        if any(
            column.total_uncompressed_size > _MOST_GROUP_BYTES or column.num_values > _MOST_GROUP_VALUES
            for column in columns
        ):
            raise DataError(
                f"{path}: row group {place} has a column of more than {_MOST_GROUP_BYTES:,} bytes or "
                f"{_MOST_GROUP_VALUES:,} values; write smaller row groups"
            )
    return table


def _rows(path: Path, table: pq.ParquetFile, place: Place) -> Iterator[tuple[Line, Place]]:
    first = 0
    for group in range(table.metadata.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if first + rows > place.lines:
            yield from _rows_of(path, table, group, first, max(0, place.lines - first))
        first += rows


def _rows_of(path: Path, table: pq.ParquetFile, group: int, first: int, skipped: int) -> Iterator[tuple[Line, Place]]:
    number = first
    try:
        for batch in table.iter_batches(batch_size=64, row_groups=[group], use_threads=False):
            for row in range(len(batch)):
                number += 1
                if number > first + skipped:
                    content = {name: batch.column(name)[row].as_py() for name in batch.schema.names}
                    yield Line(number, content), Place(number)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}, row {number + 1}: the file is damaged: {error}") from error


# ---- one line ----


def request_of(line: Line, k: int) -> tuple[str, Request]:
    """The name of a line in the output, and what it asks for.

    Args:
        line: its ``id`` is the name, else its ``user``, else its number.
        k: where it has none of its own.

    Raises:
        DataError: a field is not one of a line, or not as it should be.
    """
    content = line.content
    if not isinstance(content, Mapping):
        raise DataError(f"a line is such as {_SUCH_AS}, not {_short(content)}")
    _refuse_unknown(content, "")
    given = {name: value for name, value in content.items() if value is not None}
    for listed in _LISTS:
        value = given.get(listed, [])
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            raise DataError(f"{listed}: {_short(value)} is no list of at most {MOST_ITEMS:,}")
    user = read_id("user", given["user"]) if "user" in given else None
    named = read_id("id", given["id"]) if "id" in given else user
    request = Request(
        items=_ids("items", given),
        texts=[_text(text) for text in given.get("texts", [])],
        user=user,
        times=[_number("times", time) for time in given["times"]] if "times" in given else None,
        at=_number("at", given["at"]) if "at" in given else None,
        k=_wanted(given.get("k", k)),
        exclude=_ids("exclude", given),
        among=_ids("among", given) if "among" in given else None,
        filter_seen=_switch("filter_seen", given.get("filter_seen", True)),
    )
    return str(line.number) if named is None else named, request


def _refuse_unknown(names: Any, where: str) -> None:
    for name in names:
        if name not in _FIELDS:
            raise DataError(f"{where}a line has no {_short(name)} ({', '.join(_FIELDS)}){did_you_mean(name, _FIELDS)}")


def _ids(name: str, given: Mapping[str, Any]) -> list[str]:
    return [read_id(name, value) for value in given.get(name, [])]


def read_id(name: str, value: Any) -> str:
    """An id of JSON.

    Raises:
        DataError: it is neither a text nor a whole number; ``name`` says which it is.
    """
    if _is_text(value) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise DataError(f"{name}: {_short(value)} is no id; ids are texts or whole numbers")


def _is_text(value: Any) -> bool:
    """Whether it is a text that can be written: halves of characters cannot."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def _number(name: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LAST_SECOND:
        return float(value)
    raise DataError(f"{name}: {_short(value)} is no number of seconds since 1970")


def _text(value: Any) -> str | dict[str, str]:
    if _is_text(value):
        return str(value)
    if isinstance(value, Mapping):  # a row of Parquet has every field of the others
        fields = {str(name): text for name, text in value.items() if text is not None}
        if all(map(_is_text, fields.values())):
            return fields
    raise DataError(f"texts: {_short(value)} is neither a text nor fields with texts")


def _wanted(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_WANTED:
        return value
    raise DataError(f"k: {_short(value)} is no whole number from 1 to {MOST_WANTED:,}")


def _switch(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise DataError(f"{name}: {_short(value)} is neither true nor false")


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."
