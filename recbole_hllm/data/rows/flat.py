"""Padded tables of rows out of flat arrays."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_index(index: Any, size: int) -> np.ndarray:
    """Whatever RecBole indexes with (number, list, slice, array, tensor) as row numbers, int64."""
    if isinstance(index, slice):
        return np.arange(*index.indices(size))
    index = np.asarray(index)
    return np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64, copy=False).reshape(-1)


class Padded:
    """(B, width) rows of flat values, each from its begin to its end, padded on the right with 0.

    Args:
        begin, end: (B,) of each row, at most ``width`` apart.
        width: of the table.

    Attributes:
        source: flat positions of all that is in the table, row by row.
        lengths: (B,) of each row.
    """

    def __init__(self, begin: np.ndarray, end: np.ndarray, width: int) -> None:
        self.shape, self.lengths = (len(begin), width), end - begin
        before = np.cumsum(self.lengths) - self.lengths
        numbers = np.arange(self.lengths.sum())
        self.source = np.repeat(begin - before, self.lengths) + numbers
        self._places = np.repeat(np.arange(len(begin)) * width - before, self.lengths) + numbers

    def through(self, positions: np.ndarray) -> "Padded":
        """This table of positions, which lead to the values."""
        self.source = positions[self.source]
        return self

    def of(self, values: np.ndarray, dtype: type[np.generic]) -> Tensor:
        """(B, width, ...) values in that type."""
        table = np.zeros((self.shape[0] * self.shape[1], *values.shape[1:]), dtype)
        table[self._places] = values.take(self.source, axis=0)
        return torch.from_numpy(table.reshape(*self.shape, *values.shape[1:]))


def first_after(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, bound: Any, itself: bool = False
) -> np.ndarray:
    """(R,) the first place of more than ``bound`` in the rising ``values[low:high]``; ``high`` where there is none.

    Args:
        bound: one number, or (R,).
        itself: of at least ``bound`` instead.
    """
    low, high, bound = low.copy(), high.copy(), np.broadcast_to(bound, low.shape)
    open_ = np.flatnonzero(low < high)
    while len(open_):
        middle = (low[open_] + high[open_]) // 2
        found, wanted = values[middle], bound[open_]
        above = found >= wanted if itself else found > wanted
        high[open_[above]] = middle[above]
        low[open_[~above]] = middle[~above] + 1
        open_ = open_[low[open_] < high[open_]]
    return low
