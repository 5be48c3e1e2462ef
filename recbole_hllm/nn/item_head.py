"""What lies between a language model's vector of an item and the vector that is compared: whitening, and a head."""

import numpy as np
import torch
from torch import Tensor, nn

from recbole_hllm.nn.whitening import pca, zca

METHODS = {"zca": zca, "pca": pca}


class Whitening(nn.Module):
    """Whitens vectors with the statistics of a catalogue (WhitenRec, arXiv 2402.10602, section 4).

    Mean and matrix are no weights but buffers, so that a checkpoint has them. Until ``fit`` they change nothing.

    Args:
        width: D, of a vector, before and after.
        method: name of one of `METHODS`.

    Attributes:
        items: how many vectors the statistics are of; 0: none yet.
    """

    mean: Tensor
    matrix: Tensor
    items: Tensor

    def __init__(self, width: int, method: str) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))
        self.register_buffer("items", torch.zeros((), dtype=torch.long))

    def fit(self, vectors: np.ndarray) -> None:
        """Takes the statistics of (N, D) vectors, N >= 1, computed in float64."""
        mean, matrix = METHODS[self.method](vectors)
        self.mean.copy_(torch.from_numpy(mean))
        self.matrix.copy_(torch.from_numpy(matrix))
        self.items.fill_(len(vectors))

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., D) vectors -> (..., D) ``(x - mean) @ matrix``, in float32: what varies little is scaled up, and its
        rounding with it."""
        with torch.autocast(vectors.device.type, enabled=False):
            return (vectors.float() - self.mean) @ self.matrix


def item_head(in_features: int, out_features: int, hidden: int | None = None) -> nn.Module:
    """A layer from one width to another, none where they are equal; or a perceptron of two.

    Args:
        in_features: H.
        out_features: D.
        hidden: size between the perceptron's two layers; None: a linear layer.

    Returns:
        module (..., H) -> (..., D).
    """
    if hidden is not None:
        return nn.Sequential(nn.Linear(in_features, hidden), nn.GELU(), nn.Linear(hidden, out_features))
    return nn.Identity() if in_features == out_features else nn.Linear(in_features, out_features)
