"""Who is nearest: the items whose vectors have the largest products with a user's."""

from typing import Protocol

import torch
from torch import Tensor

# Scores that are held at once: 256 MB of float32.
MOST_SCORES = 2**26
# Items side by side whose largest score decides whether any of them is looked at.
_GROUP = 128
# Up to so many users, items times users is faster than users times items: each vector is read once.
_FEW = 8


class Index(Protocol):
    """Finds items.

    Attributes:
        exact: whether it finds the best ones always.
    """

    exact: bool

    def search(self, users: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best items of each user.

        Args:
            users: (B, E).
            k: how many.

        Returns:
            (B, K) scores, falling, and numbers of the items; 0 where there are fewer.
        """
        ...

    def changed(self, items: Tensor) -> None:
        """Some items, by their (M,) numbers, have other vectors from now on; of new ones it need not be told."""
        ...


class ItemVectors(Protocol):
    """What has vectors of items."""

    @property
    def items(self) -> Tensor:
        """(N, E), row 0 being padding."""
        ...


class ExactIndex:
    """Scores of all items, some users at a time.

    Args:
        items: gives the vectors; read anew in each search, since items may be added.
    """

    exact = True

    def __init__(self, items: ItemVectors) -> None:
        self.vectors = items

    def search(self, users: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best items of each user; see `Index`."""
        items = self.vectors.items
        at_once = max(1, MOST_SCORES // len(items))
        found = [best_of(scores_of(block, items), min(k, len(items) - 1)) for block in users.split(at_once)]
        return torch.cat([scores for scores, _ in found]), torch.cat([numbers for _, numbers in found])

    def changed(self, items: Tensor) -> None:
        """Nothing: vectors are read anew."""


def scores_of(users: Tensor, items: Tensor) -> Tensor:
    """(B, E) users and (N, E) items -> (B, N) products; those of padding, item 0, are -inf."""
    scores = (items @ users.T).T.contiguous() if 1 < len(users) <= _FEW else users @ items.T
    scores[:, 0] = -torch.inf
    return scores


def best_of(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B, N) scores -> (B, k) the largest, falling, and their places: those of ``topk``.

    A group of neighbours is looked at only where its largest score is among the k largest of all groups, since every
    one of the k best is in such a group. One pass over the scores finds these, which ``topk`` alone needs many for.
    """
    groups = scores.shape[1] // _GROUP
    if k >= groups:
        whole = scores.topk(k)
        return whole.values, whole.indices
    rest = scores[:, groups * _GROUP :]
    grouped = scores[:, : groups * _GROUP].unflatten(1, (groups, _GROUP))
    chosen = grouped.amax(2).topk(k).indices
    within = torch.arange(_GROUP, device=scores.device)
    places = (chosen[:, :, None] * _GROUP + within).flatten(1)
    last = torch.arange(groups * _GROUP, scores.shape[1], device=scores.device).expand(len(scores), -1)
    places = torch.cat([places, last], 1)
    candidates = torch.cat([scores.gather(1, places[:, : k * _GROUP]), rest], 1)
    best = candidates.topk(k)
    return best.values, places.gather(1, best.indices)
