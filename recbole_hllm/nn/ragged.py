"""Rows of different lengths: most histories are far shorter than the longest, and padding costs as much as items."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

_alike: ContextVar[bool] = ContextVar("_alike", default=False)


@contextmanager
def read_alike(wanted: bool = True) -> Iterator[None]:
    """Inside, all rows are one group, however long they are, and all processes read as many chunks of items: processes
    with other rows then call the same layers equally often, which those need that gather the weights of a layer when it
    is called."""
    token = _alike.set(wanted)
    try:
        yield
    finally:
        _alike.reset(token)


def reads_alike() -> bool:
    """Whether this is inside ``read_alike``."""
    return _alike.get()


def similar_lengths(lengths: Tensor) -> list[tuple[Tensor, int]]:
    """Groups of rows that are worth reading together, the longest first.

    Args:
        lengths: (B,) how much of each row is real.

    Returns:
        for each group the numbers of its rows and the longest of their lengths, at least 1; each of its rows is longer
        than half of that, or empty where that is 1. One group inside ``read_alike``.
    """
    ordered, order = torch.sort(lengths.clamp(min=1), descending=True, stable=True)
    falling, groups, first = ordered.tolist(), [], 0
    while first < len(falling):
        longest, last = falling[first], first + 1
        while last < len(falling) and (reads_alike() or 2 * falling[last] > longest):
            last += 1
        groups.append((order[first:last], longest))
        first = last
    return groups


def read_by_length(read: Callable[[Tensor, int], Tensor], lengths: Tensor, width: int) -> Tensor:
    """Rows that are read in groups of similar length, put together again.

    Args:
        read: (n,) numbers of rows and the longest L of their lengths -> (n, L, D) outputs of their first L positions.
        lengths: (B,) how much of each row is real.
        width: positions of a row, padding included.

    Returns:
        (B, width, D) outputs, 0 after the longest of a row's group.
    """
    groups = similar_lengths(lengths)
    outputs = [F.pad(read(rows, longest), (0, 0, 0, width - longest)) for rows, longest in groups]
    return torch.cat(outputs)[torch.argsort(torch.cat([rows for rows, _ in groups]))]
