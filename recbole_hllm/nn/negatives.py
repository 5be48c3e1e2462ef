"""Further negatives that cost no item to encode: the targets of a batch, and vectors of earlier batches."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Negatives:
    """Items that targets are compared with.

    Args:
        ids: (K,) shared by all positions, or (P, K), each position's own.
        vectors: (K, D), or (U, D) of different items, with ``places``.
        bias: (K,) what is added to the logits of shared ones; None: nothing.
        places: (P, K) which of the U are each position's own; None: they are shared.
    """

    ids: Tensor
    vectors: Tensor
    bias: Tensor | None = None
    places: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def and_also(self, other: "Negatives") -> "Negatives":
        """Shared negatives with others after them."""
        bias = None
        if self.bias is not None or other.bias is not None:
            bias = torch.cat([_or_zeros(self), _or_zeros(other)])
        vectors = torch.cat([self.vectors, other.vectors.to(self.vectors.dtype)])
        return Negatives(torch.cat([self.ids, other.ids]), vectors, bias)


def _or_zeros(negatives: Negatives) -> Tensor:
    bias = negatives.bias
    return torch.zeros(len(negatives), device=negatives.vectors.device) if bias is None else bias


def once_each(ids: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Different items, and where others are among them.

    Args:
        ids: of any shape.
        n_items: of the catalogue, with padding.

    Returns:
        (U,) the different ones of ``ids`` in rising order; and the places of ``ids`` among them, in their shape.
    """
    there = torch.zeros(n_items, dtype=torch.bool, device=ids.device)
    there[ids.reshape(-1)] = True
    return there.nonzero().view(-1), (there.cumsum(0) - 1)[ids]


def log_q_bias(counts: Tensor) -> Tensor:
    """What corrects the logits of items that are drawn as often as they are bought (Yi et al., RecSys 2019).

    There an item's logit loses log p, p its probability to be drawn. Here log(p N), which is 0 for one that is drawn as
    often as in a uniform draw from all N items: so both kinds stand side by side, and the softmax is the same.

    Args:
        counts: (N + 1,) how often each item is in the training data; the padding item 0 does not count.

    Returns:
        (N + 1,) float32; 0 for an item that is in none.
    """
    counts = counts.double().index_fill(0, torch.tensor([0], device=counts.device), 0)
    share = counts / counts.sum().clamp(min=1) * (len(counts) - 1)
    return torch.where(counts > 0, -share.log(), 0.0).float()


class CrossBatchMemory(nn.Module):
    """The last negatives of earlier batches, without gradients (cross-batch memory, arXiv 1912.06798).

    Its contents are part of a checkpoint, so that a run that goes on has them.

    Args:
        size: how many are kept; the oldest make room.
        width: D of a vector.
        correct: bring their vectors to where items are now: mean and standard deviation of each of the D numbers become
            those of the present negatives (cross-batch normalisation, Ajanthan et al. 2023).
    """

    ids: Tensor
    vectors: Tensor
    bias: Tensor
    kept_at: Tensor
    steps: Tensor

    def __init__(self, size: int, width: int, correct: bool = False) -> None:
        super().__init__()
        self.size, self.correct = size, correct
        self.register_buffer("ids", torch.zeros(size, dtype=torch.long))
        self.register_buffer("vectors", torch.zeros(size, width))
        self.register_buffer("bias", torch.zeros(size))
        self.register_buffer("kept_at", torch.full((size,), -1))  # the step; -1: the place is free
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def remembered(self, now: Negatives) -> Negatives:
        """What is kept, the newest last.

        Args:
            now: the present ones, to whose vectors those of the memory are brought where that is wanted.
        """
        used = self.kept_at >= 0
        vectors = self.vectors[used]
        if self.correct and len(vectors) > 1 and len(now) > 1:
            vectors = _matched(vectors, now.vectors.detach().float())
        return Negatives(self.ids[used], vectors, self.bias[used])

    def age(self) -> Tensor:
        """Mean number of steps since they were computed; 0 for none."""
        used = self.kept_at >= 0
        return (self.steps - self.kept_at[used]).float().sum() / used.sum().clamp(min=1)

    @torch.no_grad()
    def keep(self, negatives: Negatives) -> None:
        """Takes those of a step; of more than there is room for, the last."""
        new = {
            "ids": negatives.ids,
            "vectors": negatives.vectors.float(),
            "bias": _or_zeros(negatives),
            "kept_at": torch.full_like(negatives.ids, int(self.steps)),
        }
        for name, values in new.items():
            kept = getattr(self, name)
            kept.copy_(torch.cat([kept, values])[-self.size :])
        self.steps += 1


def _matched(old: Tensor, new: Tensor) -> Tensor:
    """(M, D) vectors with the mean and the standard deviation of (K, D) others in each of the D numbers."""
    spread, mean = torch.std_mean(old, dim=0)
    new_spread, new_mean = torch.std_mean(new, dim=0)
    return (old - mean) / spread.clamp(min=torch.finfo(old.dtype).eps) * new_spread + new_mean


class FurtherNegatives(nn.Module):
    """Adds what a model's keys want to the negatives of a step.

    Args:
        bias: (n_items,) of ``log_q_bias`` where the batch's targets are negatives of all positions; None: they are not.
        memory: of earlier batches; None: there is none.
        of_batch: (P,) ids and (P, D) vectors of targets -> those of the whole batch, where others have some of its rows
            and are given the same drawn negatives; None: these are all.
    """

    of_item: Tensor | None

    def __init__(
        self,
        bias: Tensor | None,
        memory: CrossBatchMemory | None,
        of_batch: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("of_item", bias, persistent=False)
        self.memory, self.of_batch = memory, of_batch

    def forward(self, drawn: Negatives, target_ids: Tensor, targets: Tensor) -> tuple[Negatives, Tensor | None]:
        """The negatives of a step, and what is added to the logits of the P targets.

        Args:
            drawn: shared ones.
            target_ids: (P,) of the rows.
            targets: (P, D) their vectors.
        """
        now, of_targets = drawn, None
        if self.of_item is not None:
            of_targets = self.of_item[target_ids]
            ids, vectors = (target_ids, targets) if self.of_batch is None else self.of_batch(target_ids, targets)
            now = drawn.and_also(Negatives(ids, vectors, self.of_item[ids]))
        if self.memory is None:
            return now, of_targets
        everything = now.and_also(self.memory.remembered(now))
        self.memory.keep(now)
        return everything, of_targets

    def terms(self) -> dict[str, Tensor]:
        """For the log: the mean age of the memory, in steps."""
        return {} if self.memory is None else {"memory_age": self.memory.age()}
