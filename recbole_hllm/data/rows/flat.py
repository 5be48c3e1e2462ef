"""Padded tables of rows out of flat arrays."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor


def take(feat: Interaction, index: Any) -> Interaction:
    """Rows of a table."""
    return Interaction({field: values[index] for field, values in feat.interaction.items()})


def as_index(index: Any, size: int) -> Tensor:
    """Whatever RecBole indexes with (number, list, slice, array, tensor) as a tensor of row numbers."""
    if isinstance(index, slice):
        return torch.arange(size)[index]
    index = torch.as_tensor(index)
    return torch.nonzero(index)[:, 0] if index.dtype == torch.bool else index.long().reshape(-1)


def padded_positions(begin: Tensor, end: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """(B, width) flat positions begin, begin + 1, ... and which of them are before end."""
    positions = begin[:, None] + torch.arange(width)
    real = positions < end[:, None]
    return torch.where(real, positions, 0), real


def gather(values: Tensor, positions: Tensor, real: Tensor) -> Tensor:
    """(B, width, ...) values at flat positions, 0 where nothing is real."""
    rows = values.index_select(0, positions.reshape(-1)).view(*positions.shape, *values.shape[1:])
    return rows.masked_fill_(~over(real, values), 0)


def over(real: Tensor, values: Tensor) -> Tensor:
    """A (B, width) mask shaped to multiply rows of (N, ...) values."""
    return real.view(*real.shape, *[1] * (values.dim() - 1))


def ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """begin[0]..end[0]-1, begin[1]..end[1]-1, ... in one array."""
    lengths = end - begin
    total = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(begin - total[:-1], lengths) + np.arange(total[-1])
