"""File formats: how the tables of a data set, interactions, items and users, are read.

A table is RecBole's atomic file, such as ``shop.item``, perhaps compressed, ``shop.item.gz``; or a file of another
format in its place, ``shop.item.csv``; or a folder of Parquet parts. A format is a module with ``read_header`` and
``read_table``, as ``reader`` has them for atomic files.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_hllm.data.files import parquet, reader
from recbole_hllm.data.files.blocks import narrow, number_texts
from recbole_hllm.data.files.table import Table
from recbole_hllm.data.files.text_blocks import read_blocks
from recbole_hllm.doors import Door
from recbole_hllm.errors import DataError, UserError

# Suffix -> the module that reads such files.
_ROWS = {"parquet": "recbole_hllm.data.files.parquet"}
FORMATS = Door("file format", _ROWS, group="recbole_hllm.formats")
_SEQUENCES = (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ)


def find_table(path: Path) -> Path:
    """The file or folder of a table, whatever its format.

    Args:
        path: that of the atomic file, such as ``dataset/shop/shop.item``.

    Returns:
        The one that is there; where there is none, ``path``.

    Raises:
        DataError: there are several.
    """
    there = [file for file in files_of(path) if file.exists()]
    if len(there) > 1:
        raise DataError(f"{there[0]} and {there[1].name} both exist; keep one of them")
    return there[0] if there else path


def files_of(path: Path) -> list[Path]:
    """The files that may hold a table, that of each format."""
    suffixes = [*(suffix[1:] for suffix in reader.COMPRESSED), *FORMATS]
    return [path, *(path.with_name(f"{path.name}.{suffix}") for suffix in suffixes)]


def parts_of(path: Path) -> list[Path]:
    """The files that a table consists of: one, or the parts in its folder."""
    return parquet.parts_of(path) if path.is_dir() else [path]


def is_atomic(path: Path) -> bool:
    """Whether a table is an atomic file, perhaps compressed."""
    return not path.is_dir() and path.suffix[1:] not in FORMATS


def place_of(path: Path, label: int) -> str:
    """Where a row of ``read_table`` stands, by its index label: "line 7", or "row 6" of a table without lines."""
    return f"row {int(label) + 1}" if _is_parquet(path) else f"line {reader.line_of(label)}"


def _is_parquet(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".parquet"


def read_header(
    path: Path, separator: str = "\t", encoding: str | None = None, ids: Collection[str] = ()
) -> dict[str, FeatureType]:
    """The columns of a table and their types, in file order.

    Args:
        path: a file that ``find_table`` found.
        separator, encoding: values of the keys ``field_separator`` and ``encoding``; not every format has them.
        ids: columns whose numbers are texts, for formats that distinguish numbers from texts.

    Raises:
        UserError: what is wrong with the file, or with these keys.
    """
    if is_atomic(path):
        return reader.read_header(path, separator, encoding)
    if _is_parquet(path):
        return parquet.read_header(path, separator, encoding, ids)
    header = _read(path, "read_header", separator, encoding)
    kinds = {kind.value: kind for kind in FeatureType}
    wrong = [f"{name}:{kind}" for name, kind in header.items() if getattr(kind, "value", kind) not in kinds]
    if wrong or not header:
        raise DataError(f"{path}: column '{' '.join(wrong)}' must be name:type with a type of {', '.join(kinds)}")
    return {name: FeatureType(kind) for name, kind in header.items()}


def read_table(
    path: Path,
    columns: list[str],
    separator: str = "\t",
    encoding: str | None = None,
    ids: Collection[str] = (),
    texts: Collection[str] = (),
) -> pd.DataFrame:
    """Some columns of a table: float columns as float64, all others as text; empty cells are NaN. Cells of a column of
    lists, which Parquet has, are arrays.

    The row's label in the index is its number from 0 on; of a file of lines, its line is ``line_of`` the label.

    Args:
        path, separator, encoding, ids: as for ``read_header``.
        columns: names of columns that the table has.
        texts: columns whose numbers are texts, too, and may be no whole ones.

    Raises:
        UserError: what is wrong with the file; names the line and the column where the format can.
    """
    if is_atomic(path):
        return reader.read_table(path, columns, separator, encoding)
    if _is_parquet(path):
        return parquet.read_table(path, columns, separator, encoding, ids, texts)
    return _read(path, "read_table", columns, separator, encoding)


def read_columns(
    path: Path,
    columns: dict[str, FeatureType],
    exact: str,
    separator: str = "\t",
    encoding: str | None = None,
    seq_separator: str = " ",
    ids: Collection[str] = (),
) -> Table:
    """Some columns of a table as flat arrays; sequences are objects.

    Args:
        path, separator, encoding, ids: as for ``read_header``.
        columns: those to read, and their types.
        exact: the column whose numbers stay whole where they are, that of the times.
        seq_separator: between the words of a sequence that is written as one text.

    Raises:
        UserError: what is wrong with the file; names the line and the column where the format can.
    """
    table = None
    if not any(kind in _SEQUENCES for kind in columns.values()):
        if is_atomic(path):
            table = read_blocks(path, list(columns), separator, encoding, exact)
        elif _is_parquet(path):
            table = parquet.read_blocks(path, list(columns), exact, ids)
    if table is None:
        frame = read_table(path, list(columns), separator, encoding, ids)
        table = _of_frame(path, frame, columns, exact, seq_separator)
    return table


def _of_frame(path: Path, frame: pd.DataFrame, kinds: dict[str, FeatureType], exact: str, separator: str) -> Table:
    labels = frame.index
    table = Table({}, {}, lambda row: place_of(path, labels[row]))
    for name, kind in kinds.items():
        values = frame.pop(name)
        if kind in _SEQUENCES:
            table.columns[name] = as_objects(split(values, kind, separator, path))
        elif kind == FeatureType.FLOAT:
            table.columns[name] = narrow(values.to_numpy()) if name == exact else values.to_numpy()
        else:
            table.columns[name], table.tokens[name] = number_texts(values.to_numpy(object))
    return table


def split(values: pd.Series, kind: FeatureType, separator: str, path: Path) -> list[np.ndarray]:
    """Cells of a column of sequences as arrays; an empty cell is an empty array.

    Raises:
        DataError: a word that is no number in a ``float_seq`` column; names line and column.
    """
    if len(values) and all(isinstance(cell, np.ndarray) for cell in values):
        return list(values)
    if kind == FeatureType.FLOAT_SEQ:
        return reader.split_numbers(values, separator, path)
    return reader.split_sequences(values, separator)


def as_objects(cells: Sequence[Any]) -> np.ndarray:
    """(T,) array of arrays, also where all are of one length."""
    column = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        column[row] = cell
    return column


def _read(path: Path, function: str, *arguments: Any) -> Any:
    """What a format's function returns; an error of a library that it reads with names the file."""
    try:
        return getattr(FORMATS.load(path.suffix[1:]), function)(path, *arguments)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
