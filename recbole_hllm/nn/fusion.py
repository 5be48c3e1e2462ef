"""Fusion of a user's and an item's vector of preference (LEARN, arXiv 2405.03988, section 3.6)."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """A linear layer for each vector, a perceptron over both, and the probability it is trained by.

    The paper leaves the widths open.

    Args:
        user_size, item_size: sizes of the two vectors.
        hidden: sizes of the layers; the first that both vectors are brought to, the last that of the middle vector.
    """

    def __init__(self, user_size: int, item_size: int, hidden: list[int]):
        super().__init__()
        self.user_proj = nn.Linear(user_size, hidden[0])
        self.item_proj = nn.Linear(item_size, hidden[0])
        sizes = [2 * hidden[0], *hidden[1:]]
        self.layers = nn.Sequential(
            *(layer for before, after in pairwise(sizes) for layer in (nn.Linear(before, after), nn.ReLU()))
        )
        self.middle_size = sizes[-1]
        self.head = nn.Linear(self.middle_size, 1)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) users and items -> (B, M) middle vectors and (B,) logits of the auxiliary loss."""
        middle = self.layers(torch.cat([self.user_proj(users), self.item_proj(items)], dim=-1).relu())
        return middle, self.head(middle).squeeze(-1)
