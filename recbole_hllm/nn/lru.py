"""Linear recurrent units (arXiv 2310.02367, section 4): a recurrence without nonlinearity, computed for all places."""

import math

import torch
from torch import Tensor, nn

# Moduli of the eigenvalues at first: near 1, so that what was read long ago is remembered.
_LEAST, _MOST = 0.8, 0.99


class LinearRecurrence(nn.Module):
    """``h_t = lambda * h_(t-1) + gamma * B x_t`` and ``y_t = Re(C h_t)``, complex and diagonal.

    lambda = exp(-exp(nu) + i exp(theta)) has a modulus below 1 whatever nu is. Complex numbers are pairs of real
    weights.

    Args:
        width: size D of the vectors; the state has 2 D complex numbers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        size = 2 * width
        square = torch.rand(size) * (_MOST**2 - _LEAST**2) + _LEAST**2  # of the modulus: even over the ring's area
        self.nu = nn.Parameter((-0.5 * square.log()).log())
        self.theta = nn.Parameter((2 * math.pi * torch.rand(size)).log())
        self.gamma = nn.Parameter(0.5 * (1 - square).log())  # the logarithm: states begin with the inputs' variance
        self.into, self.out = nn.Linear(width, 2 * size), nn.Linear(2 * size, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D), each place from those up to it."""
        real, imaginary = self.into(x).float().chunk(2, dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            driven = torch.complex(real, imaginary) * self.gamma.exp()
            states = scan(driven, torch.complex(-self.nu.exp(), self.theta.exp()).exp())
        return self.out(torch.cat([states.real, states.imag], dim=-1))


def scan(inputs: Tensor, factor: Tensor) -> Tensor:
    """The recurrence ``h_t = factor * h_(t-1) + inputs_t`` from h = 0 on, in log2 S steps.

    After a step of distance d each place has the sum over the 2 d places up to it.

    Args:
        inputs: (B, S, H).
        factor: (H,).
    """
    distance = 1
    while distance < inputs.shape[1]:
        later = inputs[:, distance:] + factor * inputs[:, :-distance]
        inputs, factor = torch.cat([inputs[:, :distance], later], dim=1), factor * factor
        distance *= 2
    return inputs


class LRUBlock(nn.Module):
    """The recurrence, then a feed-forward part; each is added to what comes in, then normalised.

    Args:
        width: size D of the vectors.
        inner_size: of the feed-forward part.
        dropout: of the feed-forward part.
        recurrent_dropout: of what the recurrence gives.
    """

    def __init__(self, width: int, inner_size: int, dropout: float, recurrent_dropout: float) -> None:
        super().__init__()
        self.recurrence = nn.Sequential(LinearRecurrence(width), nn.Dropout(recurrent_dropout))
        self.feed_forward = nn.Sequential(
            nn.Linear(width, inner_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(inner_size, width),
            nn.Dropout(dropout),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) rows padded on the right -> (B, S, D)."""
        x = self.norms[0](x + self.recurrence(x))
        return self.norms[1](x + self.feed_forward(x))
