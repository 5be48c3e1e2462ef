"""Interactions while they are read, filtered and put in order: columns as flat arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recbole_hllm.data.files.tokens import Tokens
from recbole_hllm.errors import DataError


@dataclass
class Table:
    """Columns of one or more files.

    Attributes:
        columns: name -> (T,) array: int32 numbers of ``tokens`` for a column of tokens, 0 where one is missing; float64
            for numbers, or int32 and int64 for times that are whole; objects, arrays of words or of numbers, for
            sequences.
        tokens: name -> texts of a column of tokens, in the order in which they first appear.
        place: row number -> where it stands, such as "line 7", for errors.
    """

    columns: dict[str, np.ndarray]
    tokens: dict[str, Tokens]
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def take(self, rows: np.ndarray) -> None:
        """Keeps some rows: a mask, or their numbers in a new order. Columns change one after the other, so that no two
        are in the memory twice."""
        for name in self.columns:
            self.columns[name] = self.columns[name][rows]


def joined(tables: Sequence[Table], names: Sequence[Any]) -> Table:
    """The rows of several tables, one after the other; a column that one of them lacks is empty there.

    Args:
        tables: at least one; they are used up.
        names: of their files, for the error.

    Raises:
        DataError: a column of sequences that one of them lacks.
    """
    if len(tables) == 1:
        return tables[0]
    sizes = [len(table) for table in tables]
    columns: dict[str, np.ndarray] = {}
    tokens: dict[str, Tokens] = {}
    for name in dict.fromkeys(name for table in tables for name in table.columns):
        parts = []
        for table, size, file in zip(tables, sizes, names, strict=True):
            part = table.columns.pop(name, None)
            if name in table.tokens:
                tokens[name], part = _number_alike(tokens.get(name), table.tokens[name], part)
            parts.append(part if part is not None else _nothing(name, tables, size, file))
        columns[name] = np.concatenate(parts)
    return Table(columns, tokens, tables[0].place)


def _number_alike(known: Tokens | None, tokens: Tokens, numbers: Any) -> tuple[Tokens, np.ndarray]:
    """Numbers of the tokens of a part become those of all parts."""
    if known is None:
        return tokens, numbers
    known, places = merged(known, tokens)
    return known, places[numbers]


def merged(known: Tokens, tokens: Tokens) -> tuple[Tokens, np.ndarray]:
    """Tokens with those of others that are not among them, in their order, and (n,) int32 where the others are."""
    places = known.ids_of(tokens.texts)
    new = np.flatnonzero(places[1:] == 0) + 1
    places[0] = 0
    places[new] = np.arange(len(known), len(known) + len(new))
    return known.extended(tokens.texts.take(pa.array(new))), places


def _nothing(name: str, tables: Sequence[Table], size: int, file: Any) -> np.ndarray:
    if any(name in table.tokens for table in tables):
        return np.zeros(size, np.int32)
    if any(table.columns[name].dtype == object for table in tables if name in table.columns):
        raise DataError(f"{file}: no column '{name}', which other files of the data set have")
    return np.full(size, np.nan)
