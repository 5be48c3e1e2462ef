"""LiGR transformer layers: what each part adds is gated by what comes in (arXiv 2502.03417; in eSASRec 2508.06450)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalAttention(nn.Module):
    """Multi-head attention of each position over itself and those before.

    Args:
        width: size D of the vectors.
        n_heads: a divisor of D.
        dropout: of the attention weights.
    """

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D). Padding on the right needs no mask: it lies in the future of all that is real."""
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """``W_3 dropout(SiLU(W_1 x) * W_2 x)``, without biases.

    Args:
        width: size D of the vectors.
        inner_size: rows of W_1 and W_2.
        dropout: probability.
    """

    def __init__(self, width: int, inner_size: int, dropout: float) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(width, inner_size, bias=False) for _ in range(2))
        self.down, self.dropout = nn.Linear(inner_size, width, bias=False), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.down(self.dropout(F.silu(self.gate(x)) * self.up(x)))


class LiGRLayer(nn.Module):
    """``x + sigma(W_a x) * attention(LN(x))``, then the same with SwiGLU and a gate of its own.

    Args:
        width, n_heads: as of ``CausalAttention``.
        inner_size: as of ``SwiGLU``.
        dropout: of what is added and inside SwiGLU.
        attention_dropout: of the attention weights.
    """

    def __init__(self, width: int, n_heads: int, inner_size: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = CausalAttention(width, n_heads, attention_dropout)
        self.feed_forward = SwiGLU(width, inner_size, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) rows padded on the right -> (B, S, D)."""
        for part, norm, gate in zip((self.attention, self.feed_forward), self.norms, self.gates, strict=True):
            x = x + torch.sigmoid(gate(x)) * self.dropout(part(norm(x)))
        return x


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
