"""HSTU, the Hierarchical Sequential Transduction Unit (arXiv 2402.17152, section 3), in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_TIME_BUCKETS = 128
BUCKET_WIDTH = 0.301  # of the natural logarithm of seconds
EPSILON = 1e-6
INITIAL_STD = 0.02


def time_buckets(times: Tensor, next_times: Tensor) -> Tensor:
    """Logarithmic classes of the time from each item to the one a position predicts.

    The prediction's own time is known when it is asked for, so position i looks at the time of item i + 1.

    Args:
        times: (B, S) seconds of the items.
        next_times: (B, S) seconds of the item after each of them.

    Returns:
        (B, S, S) int64 in 0..128; entry i, j is of the time between item j and the item after i.
    """
    seconds = (next_times[:, :, None] - times[:, None, :]).double().abs().clamp(min=1)
    return (seconds.log() / BUCKET_WIDTH).long().clamp(max=N_TIME_BUCKETS)


class RelativeBias(nn.Module):
    """What is added to the attention logits for the distance in places and the distance in time.

    Args:
        length: longest history N. As in the authors' code the table has 2 N - 1 distances, of which causal attention
            reads those to the past.
    """

    def __init__(self, length: int):
        super().__init__()
        self.length = length
        self.position = nn.Parameter(torch.empty(2 * length - 1).normal_(std=INITIAL_STD))
        self.time = nn.Parameter(torch.empty(N_TIME_BUCKETS + 1).normal_(std=INITIAL_STD))

    def forward(self, buckets: Tensor) -> Tensor:
        """(B, S, S) `time_buckets` -> (B, S, S) bias of query i and key j, the same for every head."""
        places = torch.arange(buckets.shape[-1], device=buckets.device)
        return self.position[places - places[:, None] + self.length - 1] + self.time[buckets]


class HSTUBlock(nn.Module):
    """One layer: attention without softmax, gated, and no feed-forward part (arXiv 2402.17152, equations 1 to 3).

    With x̂ = LN(x) and [u, v, q, k] = SiLU(x̂ W): ``y = x + W_o dropout(u * LN(A v))``, where in each head
    ``A = SiLU(q kᵀ + bias) / N`` and is 0 for the future. LN has no weights. N is a constant, not the width of the
    batch, so that padding changes nothing.

    Args:
        width: size D of the vectors.
        n_heads: a divisor of D.
        length: longest history N.
        dropout: probability.
        relative_bias: whether there is a `RelativeBias`.
    """

    def __init__(self, width: int, n_heads: int, length: int, dropout: float, *, relative_bias: bool):
        super().__init__()
        self.n_heads, self.length = n_heads, length
        self.uvqk = nn.Linear(width, 4 * width, bias=False)
        nn.init.normal_(self.uvqk.weight, std=INITIAL_STD)
        self.bias = RelativeBias(length) if relative_bias else None
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, x: Tensor, buckets: Tensor | None = None) -> Tensor:
        """Reads rows padded on the right: padding lies in the future of all that is real, so it needs no mask.

        Args:
            x: (B, S, D), S at most N.
            buckets: (B, S, S) `time_buckets`, needed with a relative bias.

        Returns:
            (B, S, D).
        """
        u, v, q, k = F.silu(self.uvqk(_norm(x))).chunk(4, dim=-1)
        q, k, v = (each.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for each in (q, k, v))
        logits = q @ k.transpose(-1, -2)
        if self.bias is not None:
            logits = logits + self.bias(buckets)[:, None]
        attention = F.silu(logits).tril() / self.length
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        return x + self.out(self.dropout(u * _norm(mixed)))


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON)
