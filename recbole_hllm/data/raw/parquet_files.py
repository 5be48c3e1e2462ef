"""Parquet files as blocks of text columns."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recbole_hllm.data.raw.blocks import Block
from recbole_hllm.data.raw.files import Progress, RawFile, problem_of
from recbole_hllm.data.raw.report import Report
from recbole_hllm.errors import DataError

_ROWS = 1 << 17
_IDS = ("user_id", "item_id")


def parquet_blocks(
    file: RawFile, wanted: dict[str, str], report: Report, progress: Progress | None = None
) -> Iterator[Block]:
    """Some columns of a Parquet file, under other names; the line of a row is its number from 1 on.

    Args:
        file: on disk, not inside an archive.
        wanted: name in the file -> name in the blocks.
        report: counts the rows.
        progress: called with the number of bytes of the file that were passed.

    Raises:
        DataError: the file cannot be read, has no such column, or one of a type that cannot be used.
    """
    if file.member:
        raise DataError(f"{file.name}: a Parquet file must be unpacked first")
    try:
        with pyarrow.parquet.ParquetFile(file.path) as parquet:
            _check(file, parquet.schema_arrow, wanted)
            yield from _blocks(file, parquet, wanted, report, progress)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file.name}: cannot be read: {problem_of(error)}") from error


def _blocks(
    file: RawFile, parquet: pyarrow.parquet.ParquetFile, wanted: dict[str, str], report: Report,
    progress: Progress | None,
) -> Iterator[Block]:  # fmt: skip
    first, rows, passed = 1, max(parquet.metadata.num_rows, 1), 0
    for batch in parquet.iter_batches(_ROWS, columns=list(wanted), use_threads=False):
        columns = {column: _as_text(batch.column(name)) for name, column in wanted.items()}
        report.rows += len(batch)
        yield Block(file.name, np.arange(first, first + len(batch)), columns)
        first += len(batch)
        if progress is not None:
            progress(file.size * (first - 1) // rows - passed)
            passed = file.size * (first - 1) // rows


def _check(file: RawFile, schema: pa.Schema, wanted: dict[str, str]) -> None:
    for name, column in wanted.items():
        if name not in schema.names:
            raise DataError(f"{file.name}: no column '{name}' (there are: {', '.join(schema.names)})")
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if column in _IDS and not (_is_text(kind) or pa.types.is_integer(kind)):
            raise DataError(
                f"{file.name}: column '{name}' is {kind}, but ids must be texts or whole numbers"
                + (" (whole numbers become double where one is missing)" if pa.types.is_floating(kind) else "")
            )


def _is_text(kind: pa.DataType) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _without_nulls(lists: pa.Array) -> pa.Array:
    """Lists of texts without what is missing inside them, as JSON lines are read; a list that is missing stays so."""
    if not lists.flatten().null_count:
        return lists
    kept = [None if row is None else [cell for cell in row if cell is not None] for row in lists.to_pylist()]
    return pa.array(kept, pa.list_(pa.string()))


def _as_text(column: pa.Array) -> pa.Array:
    """Texts; dates become ISO 8601 in microseconds, lists texts with a blank between two, a bool 0 or 1, and NaN is a
    missing number."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _as_text(column.dictionary_decode())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column.cast(pa.timestamp("us"), safe=False).cast(pa.string())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.binary_join(_without_nulls(column.cast(pa.list_(pa.string()))), " ")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    return column.cast(pa.string())
