"""LEARN's negatives where several processes share a batch: the targets of all its rows, whoever has read them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_hllm.model.base.together import numbers_of_all
from recbole_hllm.nn.gathered import gather_rows
from recbole_hllm.processes import current


@dataclass(frozen=True)
class Targets:
    """Targets of the rows of a batch.

    Args:
        vectors: (M, D) of the targets.
        rows: (M,) whose they are.
        items: (M,) which items.
        users: (B,) whose each row is.
        owned: (B, T) all items that each row has among its targets, padded with 0.
    """

    vectors: Tensor
    rows: Tensor
    items: Tensor
    users: Tensor
    owned: Tensor


def targets_of_all(own: Targets) -> tuple[Targets, int]:
    """The targets of the rows of all processes, with their gradients; and the number of this process's first row."""
    processes = current()
    if processes.world_size == 1:
        return own, 0
    users = numbers_of_all(own.users)
    first = sum(map(len, users[: processes.rank]))
    rows, items, owned = (numbers_of_all(part) for part in (own.rows + first, own.items, own.owned))
    vectors = gather_rows(own.vectors, [len(part) for part in rows], processes.rank)
    return Targets(vectors, *(torch.cat(part) for part in (rows, items, users, owned))), first
