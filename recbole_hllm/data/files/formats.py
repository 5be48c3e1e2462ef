"""File formats: how the tables of a data set, interactions, items and users, are read.

A table is RecBole's atomic file, such as ``shop.item``, or a file of another format in its place, ``shop.item.csv``.
A format is a module with ``read_header`` and ``read_table``, as ``reader`` has them for atomic files.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from recbole.utils import FeatureType

from recbole_hllm.data.files import reader
from recbole_hllm.doors import Door
from recbole_hllm.errors import DataError, UserError

# Suffix -> the module that reads such files.
FORMATS = Door("file format", {}, group="recbole_hllm.formats")


def find_table(path: Path) -> Path:
    """The file of a table, whatever its format.

    Args:
        path: that of the atomic file, such as ``dataset/shop/shop.item``.

    Returns:
        The file that is there; where there is none, ``path``.

    Raises:
        DataError: there are several.
    """
    there = [file for file in files_of(path) if file.is_file()]
    if len(there) > 1:
        raise DataError(f"{there[0]} and {there[1].name} both exist; keep one of them")
    return there[0] if there else path


def files_of(path: Path) -> list[Path]:
    """The files that may hold a table, that of each format."""
    return [path, *(path.with_name(f"{path.name}.{suffix}") for suffix in FORMATS)]


def is_atomic(path: Path) -> bool:
    """Whether a table is an atomic file."""
    return path.suffix[1:] not in FORMATS


def read_header(path: Path, separator: str = "\t", encoding: str | None = None) -> dict[str, FeatureType]:
    """The columns of a table and their types, in file order.

    Args:
        path: a file that ``find_table`` found.
        separator, encoding: values of the keys ``field_separator`` and ``encoding``; not every format has them.

    Raises:
        UserError: what is wrong with the file, or with these keys.
    """
    if is_atomic(path):
        return reader.read_header(path, separator, encoding)
    header = _read(path, "read_header", separator, encoding)
    kinds = {kind.value: kind for kind in FeatureType}
    wrong = [f"{name}:{kind}" for name, kind in header.items() if getattr(kind, "value", kind) not in kinds]
    if wrong or not header:
        raise DataError(f"{path}: column '{' '.join(wrong)}' must be name:type with a type of {', '.join(kinds)}")
    return {name: FeatureType(kind) for name, kind in header.items()}


def read_table(path: Path, columns: list[str], separator: str = "\t", encoding: str | None = None) -> pd.DataFrame:
    """Some columns of a table: float columns as float64, all others as text; empty cells are NaN.

    The row's label in the index is its number from 0 on; of a file of lines, its line is ``line_of`` the label.

    Args:
        path, separator, encoding: as for ``read_header``.
        columns: names of columns that the table has.

    Raises:
        UserError: what is wrong with the file; names the line and the column where the format can.
    """
    if is_atomic(path):
        return reader.read_table(path, columns, separator, encoding)
    return _read(path, "read_table", columns, separator, encoding)


def _read(path: Path, function: str, *arguments: Any) -> Any:
    """What a format's function returns; an error of a library that it reads with names the file."""
    try:
        return getattr(FORMATS.load(path.suffix[1:]), function)(path, *arguments)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
