"""Reads RecBole's atomic files: tab-separated, a ``name:type`` header, no quoting."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_hllm.errors import DataError


def read_header(path: Path, separator: str = "\t", encoding: str | None = None) -> dict[str, FeatureType]:
    """The columns of an atomic file and their types, in file order.

    Raises:
        DataError: no such file, an empty file, or a column that is not ``name:type``.
    """
    try:
        with open(path, encoding=encoding or "utf-8-sig", newline="") as stream:
            line = stream.readline().rstrip("\r\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line 1: not valid UTF-8 ({error.reason}); set `encoding`") from error
    if not line:
        raise DataError(f"{path} is empty: its first line must name the columns, such as user_id:token")
    columns = {}
    for column in line.split(separator):
        name, _, kind = column.partition(":")
        if kind not in {kind.value for kind in FeatureType}:
            raise DataError(
                f"{path}, line 1: column '{column}' must be name:type with a type of "
                f"{', '.join(kind.value for kind in FeatureType)}, columns parted by {separator!r} (field_separator)"
            )
        if name in columns:
            raise DataError(f"{path}, line 1: column '{name}' is there twice")
        columns[name] = FeatureType(kind)
    return columns


def read_table(path: Path, columns: list[str], separator: str = "\t", encoding: str | None = None) -> pd.DataFrame:
    """Some columns of an atomic file: float columns as float64, all others as text; empty cells are NaN.

    Raises:
        DataError: names the file and, where it can be told, the line and column of a wrong value.
    """
    header = read_header(path, separator, encoding)
    names = list(header)
    dtypes = {name: np.float64 if header[name] == FeatureType.FLOAT else str for name in columns}
    options = dict(
        sep=separator, header=None, names=names, skiprows=1, usecols=columns, quoting=csv.QUOTE_NONE,
        keep_default_na=False, na_values=[""], encoding=encoding or "utf-8-sig", skip_blank_lines=False,
    )  # fmt: skip
    try:
        table = pd.read_csv(path, dtype=dtypes, low_memory=False, **options)
    except pd.errors.ParserError as error:
        raise DataError(f"{path}: {str(error).strip()} (the header has {len(names)} columns)") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not valid {options['encoding']} ({error}); set `encoding`") from error
    except ValueError as error:
        raise _wrong_number(path, pd.read_csv(path, dtype=str, **options), dtypes) or error from error
    if table.index.nlevels > 1 or not isinstance(table.index, pd.RangeIndex):
        raise DataError(f"{path}: lines have more columns than the header, which has {len(names)}")
    if table.empty:
        raise DataError(f"{path} has a header but no rows")
    return table[columns]


def _wrong_number(path, table, dtypes) -> DataError | None:
    """The first cell of a float column that is no number, as an error."""
    for name in [name for name, dtype in dtypes.items() if dtype is np.float64]:
        wrong = pd.to_numeric(table[name], errors="coerce").isna() & table[name].notna()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            return DataError(f"{path}, line {row + 2}, column {name}: '{table[name][row]}' is not a number")
    return None


def split_sequences(values: pd.Series, separator: str, number: bool) -> list[np.ndarray]:
    """Cells of a ``_seq`` column as arrays; an empty cell is an empty array."""
    words = [[word for word in cell.split(separator) if word] for cell in values.fillna("")]
    return [np.array(cell, dtype=np.float64) if number else np.array(cell, dtype=str) for cell in words]
