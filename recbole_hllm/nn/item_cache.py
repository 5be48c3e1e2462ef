"""A vector of every item while the Item LLM is trained: the newest that was computed, of whatever age."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recbole_hllm.nn.negatives import Negatives


class ItemCache(nn.Module):
    """The newest vector of each item; those of the present step have gradients.

    Before the first step all items are encoded; from then on each step's vectors take the place of older ones, and
    items are encoded again, without gradients, after every ``every`` steps. The contents are part of a checkpoint, so
    that a run that goes on has them.

    Args:
        n_items: N, the padding item 0 included.
        width: D of a vector.
        every: steps between two refreshes; None: no refresh.
        at_once: items of a refresh, those whose vectors are oldest; None: all.
    """

    vectors: Tensor
    written: Tensor
    steps: Tensor

    def __init__(self, n_items: int, width: int, every: int | None = None, at_once: int | None = None) -> None:
        super().__init__()
        self.every, self.at_once = every, at_once
        self.register_buffer("vectors", torch.zeros(n_items, width))
        self.register_buffer("written", torch.full((n_items,), -1))  # the step; -1: never
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._live: tuple[Tensor, Tensor] | None = None

    def begin_step(self, encode: Callable[[Tensor], Tensor]) -> None:
        """Encodes what is due, before any item of a step is read.

        Args:
            encode: (n,) ids of real items -> (n, D) vectors, without gradients.
        """
        self._live = None
        due = self._due()
        if len(due):
            self.vectors[due] = encode(due).float()
            self.written[due] = self.steps
        self.steps += 1

    def _due(self) -> Tensor:
        step, written = int(self.steps), self.written[1:]
        if step == 0:
            return torch.arange(1, len(self.written), device=written.device)
        if self.every is None or step % self.every:
            return torch.zeros(0, dtype=torch.long, device=written.device)
        oldest = torch.argsort(written, stable=True)
        return 1 + oldest[: self.at_once]

    def with_live(self, ids: Tensor, live: Tensor, vectors: Tensor) -> Tensor:
        """Vectors of the items of a step.

        Args:
            ids: (n,) distinct ids of real items.
            live: (m,) places in ``ids`` of those that are encoded in this step.
            vectors: (m, D) what came of it, with gradients.

        Returns:
            (n, D), of the other items what the cache holds.
        """
        encoded = ids[live]
        self._live = encoded, vectors
        read = self.vectors[ids].to(vectors.dtype).index_copy(0, live, vectors)
        self.vectors[encoded] = vectors.detach().float()
        self.written[encoded] = self.steps - 1
        return read

    def all_items(self, drawn: Tensor, of_rows: Tensor) -> Negatives:
        """Every real item, those of this step with gradients.

        Gradients are those of the whole catalogue, on average: an item of the rows is always there, another one only
        when it is drawn, and what it gets is divided by the probability of that. Otherwise the items of the rows, which
        are targets, would be pulled to the predictions and hardly an item pushed away from them. With ``live_items`` an
        item of the rows is there as often as it is among the live ones: gradients of the Item LLM are smaller by
        about their share.

        Args:
            drawn: (K,) ids drawn uniformly from the real items.
            of_rows: ids of the step's rows.
        """
        ids = torch.arange(1, len(self.vectors), device=self.vectors.device)
        vectors = self.vectors.clone()
        if self._live is not None:
            encoded, live = self._live
            chance = 1 - (1 - 1 / len(ids)) ** len(drawn)
            by_chance = torch.isin(encoded, drawn) & ~torch.isin(encoded, of_rows)
            factor = torch.where(by_chance, 1 / chance if chance else 1.0, 1.0)[:, None]
            live = live.float().clone()
            if live.requires_grad:
                live.register_hook(lambda gradient: gradient * factor)
            vectors = vectors.index_copy(0, encoded, live)
        return Negatives(ids, vectors[1:])

    def age(self) -> Tensor:
        """Mean number of steps since the items' vectors were computed."""
        return (self.steps - 1 - self.written[1:]).float().mean()
