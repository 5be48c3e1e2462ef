"""What stands between frozen text vectors and an encoder: an MLP over whitened ones, a mixture of whitenings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STD, _LEAST_NOISE = 0.02, 0.01


class SharedMLP(nn.Module):
    """Two layers over each of several whitened forms of a vector, whose results are added (arXiv 2402.10602).

    Args:
        width: H of a form.
        out_features: D of an item's vector.
    """

    def __init__(self, width: int, out_features: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(width, out_features), nn.ReLU(), nn.Linear(out_features, out_features))

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, G H) vectors, the G forms one after the other -> (N, D)."""
        return self.layers(vectors.unflatten(-1, (-1, self.width))).sum(-2)


class WhiteningMixture(nn.Module):
    """``sum_k g_k (x - b_k) W_k`` with ``g = softmax(x W_g + noise)`` (arXiv 2206.05941, section 3.1).

    In training each expert reads x with a dropout of its own, and the gates get normal noise, of standard deviation
    ``softplus(x W_n) + 0.01``.

    Args:
        width: H of a text vector.
        out_features: D of an item's vector.
        n_experts: how many k there are.
        dropout: probability.
    """

    def __init__(self, width: int, out_features: int, n_experts: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.biases = nn.Parameter(torch.zeros(n_experts, width))
        self.experts = nn.Parameter(torch.empty(n_experts, width, out_features).normal_(std=_STD))
        self.gate, self.noise = (nn.Parameter(torch.zeros(width, n_experts)) for _ in range(2))

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, H) -> (N, D)."""
        gates = vectors @ self.gate
        if self.training:
            gates = gates + torch.randn_like(gates) * (F.softplus(vectors @ self.noise) + _LEAST_NOISE)
        shares = gates.softmax(-1)
        parts = [
            share[:, None] * ((F.dropout(vectors, self.dropout, self.training) - bias) @ expert)
            for share, bias, expert in zip(shares.unbind(-1), self.biases, self.experts, strict=True)
        ]
        return torch.stack(parts).sum(0)
