"""What processes that share a batch know of each other's rows; all call these alike, and one process asks nobody."""

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.data.batches import Batch
from recbole_hllm.nn.gathered import gather_rows
from recbole_hllm.processes import current


def stands_in(rows: Interaction) -> bool:
    """Whether the rows are another process's, read here so that this one has some: they count nothing."""
    return isinstance(rows, Batch) and rows.stands_in


def numbers_of_all(numbers: Tensor) -> list[Tensor]:
    """Each process's numbers, in the order of ranks; of any shapes, without gradients."""
    if current().world_size == 1:
        return [numbers]
    parts = current().gather_arrays(numbers.cpu().numpy())
    return [torch.from_numpy(part).to(numbers.device) for part in parts]


def distinct_of_all(ids: Tensor) -> Tensor:
    """(n,) different ids of this process, in rising order -> (N,) those of all, in rising order."""
    return ids if current().world_size == 1 else torch.unique(torch.cat(numbers_of_all(ids)))


def items_of_all(ids: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) ids and (P, D) vectors of items -> those of all processes, in the order of ranks, with their gradients."""
    if current().world_size == 1:
        return ids, vectors
    every = numbers_of_all(ids)
    return torch.cat(every), gather_rows(vectors, [len(part) for part in every], current().rank)


def new_here(rows: Tensor) -> Tensor:
    """(H, W) different rows -> (H,) which of them no process before this one has."""
    if current().world_size == 1:
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    every = [part.cpu().numpy() for part in numbers_of_all(rows)]
    before = {row.tobytes() for part in every[: current().rank] for row in part}
    own = np.array([row.tobytes() not in before for row in every[current().rank]], bool)
    return torch.from_numpy(own).to(rows.device)


def weight_of_parts(parts: int, rows: int) -> float | None:
    """What this process multiplies a mean over its ``parts`` with, so that means of all processes, weighed by their
    ``rows``, are the mean over the parts of all; None where nobody has any."""
    all_parts, all_rows = np.sum(current().gather([parts, rows]), axis=0)
    if not all_parts:
        return None
    return float(parts / all_parts / (rows / all_rows)) if rows else 0.0
