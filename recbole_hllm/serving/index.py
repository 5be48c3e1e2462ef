"""Who is nearest: the items whose vectors have the largest products with a user's."""

from typing import Protocol

import torch
from torch import Tensor

# Scores that are held at once: 256 MB of float32.
_MOST_SCORES = 2**26


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


class ExactIndex:
    """Scores of all items, some users at a time.

    Args:
        items: gives (N, E) vectors, row 0 being padding; read anew in each search, since items may be added.
    """

    exact = True

    def __init__(self, items: "ItemVectors") -> None:
        self.vectors = items

    def search(self, users: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best items of each user; see `Index`."""
        items = self.vectors.items
        at_once = max(1, _MOST_SCORES // len(items))
        found = [(block @ items.T).index_fill_(1, _padding(items), -torch.inf).topk(min(k, len(items) - 1))
                 for block in users.split(at_once)]  # fmt: skip
        return torch.cat([best.values for best in found]), torch.cat([best.indices for best in found])


class ItemVectors(Protocol):
    """What has vectors of items."""

    @property
    def items(self) -> Tensor:
        """(N, E), row 0 being padding."""
        ...


def _padding(items: Tensor) -> Tensor:
    return torch.zeros(1, dtype=torch.long, device=items.device)
