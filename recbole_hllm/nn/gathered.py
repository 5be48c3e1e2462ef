"""Rows that several processes have computed, put together with their gradients; every process calls these alike."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def gather_rows(rows: Tensor, sizes: list[int], rank: int) -> Tensor:
    """The rows of all processes, in the order of ranks.

    The gradient of a row, which each process may use, is the sum over all of them.

    Args:
        rows: (n, D) of this process.
        sizes: how many each process has.
        rank: which process this is.
    """
    gathered: Tensor = _Gathered.apply(rows.float(), sizes, rank)
    return gathered.to(rows.dtype)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.begin, ctx.end = sum(sizes[:rank]), sum(sizes[: rank + 1])
        padded = F.pad(rows, (0, 0, 0, max(sizes) - len(rows)))
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed[ctx.begin : ctx.end], None, None


def of_first(values: Tensor) -> Tensor:
    """The values of the first process; the others have as many."""
    dist.broadcast(values, 0)
    return values


def most(*numbers: int) -> list[int]:
    """The largest that any process has of each number."""
    largest = torch.tensor(numbers, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def deal(lengths: Tensor, hands: int) -> Tensor:
    """Items dealt out so that all hands have as many, of as similar lengths as can be.

    Args:
        lengths: (N,) of the items, N >= 1.
        hands: how many.

    Returns:
        (n, hands) numbers of items, the longest in the first row; an item stands twice where n * hands is above N.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    rows = -(-len(order) // hands)
    dealt = torch.cat([order, order[-1:].expand(rows * hands - len(order))]).view(rows, hands)
    dealt[1::2] = dealt[1::2].flip(1)  # who had the longest of a row has the shortest of the next
    return dealt
