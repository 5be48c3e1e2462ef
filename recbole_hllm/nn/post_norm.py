"""SASRec's transformer with RecBole's names and numbers, in plain torch: for who recommends without RecBole."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Attention(nn.Module):
    """Multi-head attention of each position over itself and those before, added to what comes in, then normalised.

    Args:
        width: size D of the vectors.
        n_heads: a divisor of D.
        eps: of the layer norm.
    """

    def __init__(self, width: int, n_heads: int, eps: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D). Padding on the right needs no mask: it lies in the future of all that is real."""
        parts = self.query, self.key, self.value
        q, k, v = (part(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.LayerNorm(self.dense(mixed.transpose(1, 2).flatten(2)) + x)


class FeedForward(nn.Module):
    """Two layers, added to what comes in, then normalised.

    Args:
        width: size D of the vectors.
        inner_size: between the two layers.
        activation: a name of `ACTIVATIONS`.
        eps: of the layer norm.
    """

    def __init__(self, width: int, inner_size: int, activation: str, eps: float) -> None:
        super().__init__()
        self.dense_1, self.dense_2 = nn.Linear(width, inner_size), nn.Linear(inner_size, width)
        self.activation = ACTIVATIONS[activation]
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.LayerNorm(self.dense_2(self.activation(self.dense_1(x))) + x)


class PostNormLayer(nn.Module):
    """One layer; arguments as of its two parts."""

    def __init__(self, width: int, n_heads: int, inner_size: int, activation: str, eps: float) -> None:
        super().__init__()
        self.multi_head_attention = Attention(width, n_heads, eps)
        self.feed_forward = FeedForward(width, inner_size, activation, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        return self.feed_forward(self.multi_head_attention(x))


class PostNormEncoder(nn.Module):
    """As many layers, without dropout: what a trained ``recbole.model.layers.TransformerEncoder`` computes for rows
    padded on the right, under the same names of weights.

    Args:
        n_layers: how many.
        width, n_heads, inner_size, activation, eps: as of each.
    """

    def __init__(self, n_layers: int, width: int, n_heads: int, inner_size: int, activation: str, eps: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList(PostNormLayer(width, n_heads, inner_size, activation, eps) for _ in range(n_layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        for layer in self.layer:
            x = layer(x)
        return x
