"""Tables of the two most common forms of raw files: separated cells, and one record per line."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from recbole_hllm.data.raw.blocks import Block, blocks_of
from recbole_hllm.data.raw.converters import Raw, Table
from recbole_hllm.data.raw.delimited import Delimited, header_of
from recbole_hllm.data.raw.files import RawFile
from recbole_hllm.data.raw.records import Record, records
from recbole_hllm.data.raw.report import Report


def delimited_table(raw: Raw, file: RawFile, wanted: dict[str, str], kinds: dict[str, str], **form: Any) -> Table:
    """A table of a file of separated cells.

    Args:
        raw: the conversion.
        file: the raw file.
        wanted: name in the file -> name in the output.
        kinds: name in the output -> type, in order.
        form: arguments of ``Delimited``.
    """
    cells = Delimited(file, progress=raw.progress, **form)
    return Table(kinds, [file], lambda report: cells.blocks(wanted, report))


def record_table(
    raw: Raw, files: Sequence[RawFile], kinds: dict[str, str], row: Callable[[Record], Sequence[str | None]],
    skip: Callable[[bytes], bool] | None = None,
) -> Table:  # fmt: skip
    """A table of files with one record per line.

    Args:
        raw: the conversion.
        files: the raw files.
        kinds: name in the output -> type, in order.
        row: the cells of a record, in this order.
        skip: whether a line is of an item that is not wanted.
    """

    def blocks(report: Report) -> Iterator[Block]:
        for file in files:
            rows = ((line, row(record)) for line, record in records(file, report, raw.progress, skip))
            yield from blocks_of(file.name, list(kinds), rows)

    return Table(kinds, list(files), blocks)


def has_columns(*names: str, separator: str = ",") -> Callable[[RawFile], bool]:
    """Whether the first line of a CSV file names columns."""

    def fits(file: RawFile) -> bool:
        return file.stem.endswith(".csv") and set(names) <= set(header_of(file, separator))

    return fits


def is_named(pattern: str) -> Callable[[RawFile], bool]:
    """Whether all of a file's name, without folder and ending of a compression, is that of a public download."""
    return lambda file: re.fullmatch(pattern, file.stem) is not None
