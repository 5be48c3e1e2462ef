"""Reads RecBole's atomic files: tab-separated, a ``name:type`` header, no quoting; as they are or compressed."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
from recbole.utils import FeatureType

from recbole_hllm.errors import ConfigError, DataError

# What stands for a missing value: in text columns nothing does but an empty cell, an item may be called NA.
_EMPTY = [""]
_NO_NUMBER = ["", "nan", "NaN", "NA", "N/A", "null", "NULL", "None"]
# Endings of the names of compressed files, and how they are.
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


def open_bytes(path: Path) -> Any:
    """What is in a file, uncompressed, as a stream to read from once.

    Raises:
        OSError: there is no such file; reading, too, raises it where the file ends too early or is damaged.
    """
    file = open(path, "rb")
    return pa.CompressedInputStream(file, COMPRESSED[path.suffix]) if path.suffix in COMPRESSED else file


def open_text(path: Path, codec: str, newline: str = "") -> TextIO:
    """The same as text; ``newline`` as for ``open``."""
    return io.TextIOWrapper(open_bytes(path), encoding=codec, newline=newline)


def unreadable(path: Path, error: OSError) -> DataError:
    """What a file that cannot be opened or read to its end means for the user."""
    if path.suffix in COMPRESSED and path.is_file():
        reason = f"it ends too early or is damaged ({error}); compress or copy it again"
        return DataError(f"{path} cannot be read as {COMPRESSED[path.suffix]}: {reason}")
    return DataError(f"{path}: {error.strerror or error}")


def read_header(path: Path, separator: str = "\t", encoding: str | None = None) -> dict[str, FeatureType]:
    """The columns of an atomic file and their types, in file order.

    Raises:
        DataError: no such file, an empty file, or a column that is not ``name:type``.
        ConfigError: an encoding or separator that cannot be used.
    """
    path = Path(path)
    if len(separator) != 1 or not separator.isascii():
        raise ConfigError(f"field_separator: {separator!r} must be a single character of ASCII")
    try:
        with open_text(path, codec_of(encoding)) as stream:
            line = stream.readline().rstrip("\r\n")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise undecodable(path, error) from error
    if not line:
        raise DataError(f"{path} is empty: its first line must name the columns, such as user_id:token")
    kinds = {kind.value: kind for kind in FeatureType}
    columns = {}
    for column in line.split(separator):
        name, _, kind = column.partition(":")
        if not name or kind not in kinds:
            raise DataError(
                f"{path}, line 1: column '{column}' must be name:type with a type of {', '.join(kinds)}, "
                f"columns separated by {separator!r} (field_separator)"
            )
        if name in columns:
            raise DataError(f"{path}, line 1: column '{name}' occurs twice")
        columns[name] = kinds[kind]
    return columns


def read_table(path: Path, columns: list[str], separator: str = "\t", encoding: str | None = None) -> pd.DataFrame:
    """Some columns of an atomic file: float columns as float64, all others as text; empty cells are NaN.

    Args:
        columns: names of columns that the file has.

    Returns:
        One row per line that is not blank; ``line_of`` gives the line of an index label.

    Raises:
        DataError: names the file, line and, for a wrong value, the column.
    """
    path, codec = Path(path), codec_of(encoding)
    header = read_header(path, separator, encoding)
    blank = _check_lines(path, header, separator, codec)
    dtypes = {name: np.float64 if header[name] == FeatureType.FLOAT else str for name in columns}
    # Blank lines are read as rows and dropped here, so that the index keeps counting lines.
    options = dict(
        sep=separator, header=None, names=list(header), skiprows=1, usecols=columns, quoting=csv.QUOTE_NONE,
        keep_default_na=False, na_values={name: _EMPTY if dtypes[name] is str else _NO_NUMBER for name in columns},
        skip_blank_lines=False,
    )  # fmt: skip
    try:
        with open_text(path, codec) as stream:
            table = pd.read_csv(stream, dtype=dtypes, float_precision="round_trip", **options)
    except ValueError as error:
        with open_text(path, codec) as stream:
            raise _wrong_number(path, pd.read_csv(stream, dtype=str, **options), dtypes) or error from error
    return table.drop(index=blank)[columns]


def line_of(label: int) -> int:
    """The line of a file that a row of ``read_table`` stood in, by the row's index label."""
    return int(label) + 2


def split_sequences(values: pd.Series, separator: str) -> list[np.ndarray]:
    """Cells of a ``token_seq`` column as arrays of text; an empty cell is an empty array."""
    return [np.array([word for word in cell.split(separator) if word], dtype=str) for cell in values.fillna("")]


def split_numbers(values: pd.Series, separator: str, path: Path) -> list[np.ndarray]:
    """Cells of a ``float_seq`` column as arrays; an empty cell is an empty array.

    Raises:
        DataError: a word that is no number; names line and column.
    """
    cells = []
    for label, cell in values.fillna("").items():
        try:
            cells.append(np.array([word for word in cell.split(separator) if word], dtype=np.float64))
        except ValueError as error:
            raise DataError(
                f"{path}, line {line_of(label)}, column {values.name}: '{cell}' is not a list of numbers separated by "
                f"{separator!r} (seq_separator)"
            ) from error
    return cells


def codec_of(encoding: str | None) -> str:
    """UTF-8 with or without a byte order mark, unless another encoding is asked for."""
    name = (encoding or "utf-8").lower().replace("_", "-")
    try:
        "".encode(name)
    except LookupError as error:
        raise ConfigError(f"encoding: there is no encoding named '{encoding}'") from error
    return "utf-8-sig" if name in ("utf-8", "utf8") else name


def _check_lines(path: Path, header: Any, separator: str, codec: str) -> list[int]:
    """Every line has the header's number of columns; pandas would fill missing ones and skip others unasked.

    Returns:
        Index labels of blank lines.
    """
    blank, label = [], -1
    try:
        with open_text(path, codec) as stream:
            stream.readline()
            for label, line in enumerate(stream):
                if line.count(separator) == len(header) - 1 and line not in ("\n", "\r\n"):
                    continue
                if line.strip("\r\n"):
                    raise DataError(
                        f"{path}, line {line_of(label)}: {line.count(separator) + 1} columns, but the header has "
                        f"{len(header)} ({', '.join(header)}); a value may hold neither {separator!r} nor a line "
                        "break, and quotes do not change that"
                    )
                blank.append(label)
    except UnicodeDecodeError as error:
        raise undecodable(path, error) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if len(blank) == label + 1:
        raise DataError(f"{path} has a header but no rows")
    return blank


def undecodable(path: Path, error: UnicodeDecodeError) -> DataError:
    """Text is decoded in blocks, so the error does not know its line: the bytes are read again to find it."""
    with io.BufferedReader(open_bytes(path)) as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode(error.encoding)
            except UnicodeDecodeError:
                return DataError(f"{path}, line {number}: not valid {error.encoding} ({error.reason}); set `encoding`")
    return DataError(f"{path} is not valid {error.encoding} ({error.reason}); set `encoding`")


def _wrong_number(path: Path, table: pd.DataFrame, dtypes: Mapping[str, Any]) -> DataError | None:
    """The first cell of a float column that is no number, as an error."""
    for name in [name for name, dtype in dtypes.items() if dtype is np.float64]:
        wrong = pd.to_numeric(table[name], errors="coerce").isna() & table[name].notna()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            return DataError(f"{path}, line {line_of(row)}, column {name}: '{table[name][row]}' is not a number")
    return None
