"""Tables as Parquet: one file, or a folder of parts as Spark, Ray, DuckDB and warehouses write them.

Columns are called as in atomic files, ``item_id`` or ``item_id:token``. Without a type in the name texts are ``token``,
numbers and times ``float`` (times in Unix seconds), lists ``token_seq`` or ``float_seq``; whole numbers in a column of
ids are tokens, by their decimal text.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from recbole.utils import FeatureType

from recbole_hllm.data.files.blocks import Numbering, Numbers, gathered
from recbole_hllm.data.files.table import Table
from recbole_hllm.errors import DataError

_ROWS = 1 << 20
_KINDS = {kind.value: kind for kind in FeatureType}
# By their names: older releases of pyarrow have no views.
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
_SECONDS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def parts_of(path: Path) -> list[Path]:
    """The files of a table: itself, or the parts in its folder, by name; hidden ones and ``_SUCCESS`` are none.

    Raises:
        DataError: a folder without parts.
    """
    if not path.is_dir():
        return [path]
    parts = sorted(file for file in path.rglob("*.parquet") if not _hidden(file.relative_to(path)))
    if not parts:
        raise DataError(f"{path} has no *.parquet in it")
    return parts


def _hidden(file: Path) -> bool:
    return any(name.startswith((".", "_")) for name in file.parts)


def read_header(
    path: Path, separator: str = "\t", encoding: str | None = None, ids: Collection[str] = ()
) -> dict[str, FeatureType]:
    """Column -> type; columns of other types, such as structs, are none.

    Args:
        ids: columns of ids, whose numbers are tokens.

    Raises:
        DataError: a part that cannot be read, or has other columns or types than the first.
    """
    first, *others = parts_of(path)
    wanted = _schema(first, ids)
    for part in others:
        found = _schema(part, ids)
        for name in sorted(wanted.keys() | found.keys()):
            mine, theirs = (str(schema[name][2]) if name in schema else "missing" for schema in (wanted, found))
            both = name in wanted and name in found
            if not both or _family(wanted[name][2]) != _family(found[name][2]) and "null" not in (mine, theirs):
                raise DataError(
                    f"{part}, column {name}: {theirs}, but {mine} in {first.name}; all parts need the same columns and "
                    "types: remove what is no part of this table, or write it again"
                )
    return {name: kind for name, (_, kind, _) in wanted.items()}


def _schema(part: Path, ids: Collection[str]) -> dict[str, tuple[str, FeatureType, pa.DataType]]:
    """Name -> the column's name in the file, its type here and there."""
    columns: dict[str, tuple[str, FeatureType, pa.DataType]] = {}
    with _opened(part) as file:
        schema = file.schema_arrow
    for field in schema:
        name, _, given = field.name.rpartition(":")
        name, given = (name, given) if given in _KINDS and name else (field.name, "")
        kind = _KINDS[given] if given else _kind(field.type, name in ids)
        if kind is None:
            logging.getLogger().info(f"{part}: column {field.name} is not read, it holds {field.type}")
        elif name in columns:
            raise DataError(f"{part}: column '{name}' occurs twice")
        else:
            columns[name] = field.name, kind, field.type
    return columns


def _opened(part: Path) -> Any:
    try:
        return pq.ParquetFile(part)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(part, error) from error


def _damaged(part: Path, error: Exception) -> DataError:
    return DataError(f"{part} cannot be read as Parquet: {error}. Is it whole? Copy or write it again")


def _kind(kind: pa.DataType, is_id: bool) -> FeatureType | None:
    family = _family(kind)
    if family == "list":
        inner = _family(kind.value_type)
        words = inner == "text" or is_id and inner == "number"
        return FeatureType.TOKEN_SEQ if words else FeatureType.FLOAT_SEQ if inner in ("number", "time") else None
    if family in ("number", "time"):
        return FeatureType.TOKEN if is_id else FeatureType.FLOAT
    return FeatureType.TOKEN if family in ("text", "null") else None


def _family(kind: pa.DataType) -> str:
    """What kinds of values a type has that stand for each other."""
    types = pa.types
    if types.is_dictionary(kind):
        return _family(kind.value_type)
    if any(is_list(kind) for is_list in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return "list"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if str(kind) in _TEXTS:
        return "text"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind):
        return "number"
    return "null" if types.is_null(kind) else str(kind)


def read_blocks(path: Path, columns: Sequence[str], exact: str, ids: Collection[str] = ()) -> Table:
    """Columns of tokens and numbers.

    Args:
        columns: names of columns that the table has, none of them of sequences.
        exact: the column whose numbers stay whole where they are, that of the times.
        ids: columns of ids, whose numbers are tokens.

    Raises:
        DataError: a part that is damaged, or a value that does not fit its column.
    """
    kinds = read_header(path, ids=ids)
    texts = [name for name in columns if kinds[name] == FeatureType.TOKEN]
    wanted = {name: Numbering() if name in texts else Numbers(name == exact) for name in columns}
    sizes: list[tuple[Path, int]] = []

    def blocks() -> Iterator[dict[str, pa.Array]]:
        for part, block in _blocks(path, columns, ids):
            sizes.append((part, block.num_rows))
            yield {name: _converted(part, name, block[name], kinds[name]) for name in columns}

    rows, tokens = gathered(blocks(), wanted)
    if not any(size for _, size in sizes):
        raise DataError(f"{path} has columns but no rows")
    return Table(rows, tokens, lambda row: _place(path, sizes, row))


def _blocks(
    path: Path, columns: Sequence[str], ids: Collection[str]
) -> Iterator[tuple[Path, pa.RecordBatch]]:
    """Parts, and their rows in blocks, with the names of the table."""
    for part in parts_of(path):
        schema = _schema(part, ids)
        inside = {schema[name][0]: name for name in columns}
        try:
            with pq.ParquetFile(part) as file:
                for block in file.iter_batches(_ROWS, columns=list(inside)):
                    yield part, block.rename_columns([inside[name] for name in block.schema.names])
        except (OSError, pa.ArrowException) as error:
            raise _damaged(part, error) from error


def _place(path: Path, sizes: list[tuple[Path, int]], row: int) -> str:
    """Where a row stands, counted from 1 in each file."""
    begins: dict[Path, int] = {}
    begin = 0
    for part, size in sizes:
        begins.setdefault(part, begin)
        begin += size
        if row < begin:
            number = f"row {row - begins[part] + 1}"
            return number if part == path else f"{part.name}, {number}"
    raise IndexError(row)


def _converted(part: Path, name: str, values: pa.Array, kind: FeatureType) -> pa.Array:
    """The values of a block as what its column holds: texts (perhaps as a dictionary) or numbers.

    Raises:
        DataError: a value that does not fit.
    """
    try:
        return _texts(values) if kind != FeatureType.FLOAT else _numbers(values)
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"{part}, column {name}: {values.type} does not fit {name}:{kind.value} ({error})") from error


def _texts(values: pa.Array) -> pa.Array:
    """Numbers by their decimal text; each different one is written once."""
    if not pa.types.is_dictionary(values.type):
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type) or pa.types.is_null(values.type):
            return values.cast(pa.large_string())
        values = values.dictionary_encode()
    words = values.dictionary
    if pa.types.is_floating(words.type) or pa.types.is_decimal(words.type):
        words = words.cast(pa.int64())  # an id that is no whole number is refused
    return pa.DictionaryArray.from_arrays(values.indices, words.cast(pa.large_string()))


def _numbers(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(values.type):
        unit = _SECONDS[values.type.unit]
        ticks = values.cast(pa.int64())
        return ticks if unit == 1 else pc.divide(ticks.cast(pa.float64(), safe=False), pa.scalar(float(unit)))
    whole = pa.types.is_integer(values.type) and not pa.types.is_uint64(values.type)
    return values.cast(pa.int64() if whole else pa.float64(), safe=False)


def read_table(
    path: Path,
    columns: list[str],
    separator: str = "\t",
    encoding: str | None = None,
    ids: Collection[str] = (),
    texts: Collection[str] = (),
) -> pd.DataFrame:
    """Some columns, as ``formats.read_table`` has them; cells of lists are arrays.

    Raises:
        DataError: as for ``read_blocks``.
    """
    as_texts = {*ids, *texts}
    kinds = read_header(path, ids=as_texts)
    parts: dict[str, list[np.ndarray]] = {name: [np.empty(0, object)] for name in columns}
    for part, block in _blocks(path, columns, as_texts):
        for name in columns:
            is_text = name in texts and name not in ids and kinds[name] != FeatureType.FLOAT
            values = _as_words(block[name]) if is_text else block[name]
            parts[name].append(_cells(part, name, values, kinds[name]))
    table = {}
    for name, cells in parts.items():
        table[name] = np.concatenate(cells).astype(np.float64 if kinds[name] == FeatureType.FLOAT else object)
    frame = pd.DataFrame(table, columns=columns)
    if frame.empty:
        raise DataError(f"{path} has columns but no rows")
    return frame


def _as_words(values: pa.Array) -> pa.Array:
    """Numbers that need not be whole, by their shortest decimal text: 12.99, 5; NaN is missing."""
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.large_string()), values.cast(pa.large_string()))
    return values.cast(pa.large_string()) if pa.types.is_decimal(values.type) else values


def _cells(part: Path, name: str, values: pa.Array, kind: FeatureType) -> np.ndarray:
    if _family(values.type) == "list":
        inner = FeatureType.FLOAT if kind == FeatureType.FLOAT_SEQ else FeatureType.TOKEN
        flat = _converted(part, name, values.flatten(), inner)
        flat = flat.dictionary_decode() if isinstance(flat, pa.DictionaryArray) else flat
        words = np.array(flat.to_pylist(), dtype=np.float64 if inner == FeatureType.FLOAT else str)
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
        cells = np.empty(len(values), object)
        cells[:] = np.split(words, np.cumsum(lengths)[:-1]) if len(values) else []
        return cells
    flat = _converted(part, name, values, kind)
    flat = flat.dictionary_decode() if isinstance(flat, pa.DictionaryArray) else flat
    if kind == FeatureType.FLOAT:
        return flat.to_numpy(zero_copy_only=False)
    return np.array([text or np.nan for text in flat.to_pylist()], dtype=object)
