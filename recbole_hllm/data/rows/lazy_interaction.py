"""Columns of interactions as RecBole's Interaction has them, made into tensors when asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.data.rows.flat import as_index
from recbole_hllm.data.rows.positions import BLOCK, Owners, Positions


@dataclass(frozen=True)
class Column:
    """A column as it is kept, and the type that it has in a batch.

    Attributes:
        values: (T, ...), maybe memory-mapped; nobody changes it.
        dtype: of the tensors.
    """

    values: np.ndarray | Owners
    dtype: type[np.generic]

    def take(self, rows: np.ndarray) -> Tensor:
        """(B, ...) entries of these rows."""
        return torch.from_numpy(self.values.take(rows, axis=0).astype(self.dtype, copy=False))


class LazyInteraction(Interaction):
    """An Interaction that holds no tensor: rows are made when asked for, and a whole column where somebody names it.

    Nobody changes it; a deep copy is an Interaction that can be.

    Args:
        columns: name -> the column of all interactions.
        rows: which of the columns' rows these are: (R,) numbers or Positions.
    """

    def __init__(self, columns: Mapping[str, Column], rows: Any) -> None:
        self.interaction = _Tensors(dict(columns), rows)
        self.length = len(rows)

    @property
    def kept(self) -> Mapping[str, Column]:
        """The columns as they are kept."""
        return self.interaction.columns

    def of(self, rows: Any) -> "LazyInteraction":
        """Other rows of the same columns."""
        return LazyInteraction(self.kept, rows)

    def take(self, index: Any) -> Interaction:
        """The rows of these numbers, in tensors."""
        rows, index = self.interaction.rows, np.asarray(index)
        if not isinstance(rows, Positions) or rows.is_one_run:
            return self.at(rows[index])
        owners, positions = rows.at(index)
        return self.at(positions, owners)

    def at(self, rows: np.ndarray, owners: np.ndarray | None = None) -> Interaction:
        """Some rows of the columns, in tensors.

        Args:
            rows: (B,) their numbers.
            owners: (B,) number of the sequence that each belongs to, where it is known.
        """
        return Interaction(
            {
                name: column.take(rows)
                if owners is None or not isinstance(column.values, Owners)
                else torch.from_numpy(owners)
                for name, column in self.kept.items()
            }
        )

    def __getitem__(self, index: Any) -> Any:
        return self.interaction[index] if isinstance(index, str) else self.take(as_index(index, self.length))

    def __deepcopy__(self, memo: Any) -> Interaction:
        return Interaction(dict(self.interaction))


class _Tensors(Mapping[str, Tensor]):
    """name -> tensor of all rows; each is made anew."""

    def __init__(self, columns: dict[str, Column], rows: Any) -> None:
        self.columns, self.rows = columns, rows

    def __getitem__(self, name: str) -> Tensor:
        column = self.columns[name]
        whole = np.empty((len(self.rows), *column.values.shape[1:]), column.dtype)
        for begin in range(0, len(whole), BLOCK):
            whole[begin : begin + BLOCK] = column.values.take(self.rows[begin : begin + BLOCK], axis=0)
        return torch.from_numpy(whole)

    def __delitem__(self, name: str) -> None:  # `unused_col` leaves columns out
        del self.columns[name]

    def __contains__(self, name: object) -> bool:  # Mapping's makes the tensor
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


def everything(length: int) -> Positions:
    """All rows of the columns."""
    return Positions(np.zeros(1, dtype=np.int64), np.array([length]))
