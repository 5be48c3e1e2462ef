"""Atomic files in blocks of columns: tokens become numbers as they are read, so that no row is ever a Python object."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pyarrow import csv
from recbole.utils import FeatureType

from recbole_hllm.data.files.blocks import Numbering, Numbers, gathered
from recbole_hllm.data.files.reader import codec_of, line_of, open_bytes, open_text, read_header, unreadable
from recbole_hllm.data.files.table import Table

_BLOCK = 32 << 20


def read_blocks(
    path: Path, columns: Sequence[str], separator: str, encoding: str | None, exact: str
) -> Table | None:
    """Columns of tokens and numbers of an atomic file.

    Args:
        path, separator, encoding: as for ``reader.read_table``.
        columns: names of columns that the file has, none of them of sequences.
        exact: the column whose numbers stay whole where they are, that of the times.

    Returns:
        The rows of all lines that are not blank; None where something is wrong with one, or written as only
        ``reader.read_table`` knows it.

    Raises:
        DataError: a compressed file that is damaged.
    """
    header = read_header(path, separator, encoding)
    whole_first = exact in columns
    for times in [pa.int64(), pa.float64()] if whole_first else [pa.float64()]:
        kinds = {name: pa.float64() if header[name] == FeatureType.FLOAT else pa.string() for name in columns}
        if whole_first:
            kinds[exact] = times
        try:
            return _read(path, list(header), kinds, separator, encoding, exact)
        except pa.ArrowInvalid:
            continue
        except UnicodeDecodeError:
            return None
        except OSError as error:
            raise unreadable(path, error) from error
    return None


def _read(
    path: Path, names: list[str], kinds: dict[str, pa.DataType], separator: str, encoding: str | None, exact: str
) -> Table:
    codec = codec_of(encoding)
    reading = csv.ReadOptions(
        column_names=names, skip_rows=1, block_size=_BLOCK, encoding="utf8" if codec == "utf-8-sig" else codec
    )
    parsing = csv.ParseOptions(delimiter=separator, quote_char=False, double_quote=False)
    converting = csv.ConvertOptions(
        column_types=kinds, include_columns=list(kinds), strings_can_be_null=True, null_values=[""]
    )
    wanted = {
        name: Numbering() if kind == pa.string() else Numbers(exact=name == exact) for name, kind in kinds.items()
    }
    with open_bytes(path) as stream, csv.open_csv(stream, reading, parsing, converting) as blocks:
        columns, tokens = gathered(blocks, wanted)
    table = Table(columns, tokens, lambda row: f"line {_line_of_row(path, codec, row)}")
    if len(table) == 0:
        raise pa.ArrowInvalid("no rows")
    return table


def _line_of_row(path: Path, codec: str, row: int) -> int:
    """The line of a row; blank lines are none."""
    with open_text(path, codec) as stream:
        lines = (label for label, line in enumerate(islice(stream, 1, None)) if line.strip("\r\n"))
        return line_of(next(islice(lines, row, None)))
