"""Learned filters over the frequencies of a sequence (FMLP-Rec, arXiv 2202.13556, section 4.2)."""

import torch
from torch import Tensor, nn

_STD = 0.02


class FilterLayer(nn.Module):
    """``irfft(W * rfft(x))`` along the sequence: a circular convolution of each number with a learned filter.

    Args:
        length: S, of every sequence.
        width: D of the vectors.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.length = length
        self.filter = nn.Parameter(torch.empty(length // 2 + 1, width, 2).normal_(std=_STD))  # real, imaginary

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D), each place from all places."""
        with torch.autocast(x.device.type, enabled=False):
            frequencies = torch.fft.rfft(x.float(), dim=1, norm="ortho") * torch.view_as_complex(self.filter)
            return torch.fft.irfft(frequencies, n=self.length, dim=1, norm="ortho")


class FilterBlock(nn.Module):
    """The filter, then a feed-forward part; each is added to what comes in, then normalised.

    Args:
        length, width: as of ``FilterLayer``.
        inner_size: of the feed-forward part.
        dropout: of what each part gives.
    """

    def __init__(self, length: int, width: int, inner_size: int, dropout: float) -> None:
        super().__init__()
        self.filter = nn.Sequential(FilterLayer(length, width), nn.Dropout(dropout))
        self.feed_forward = nn.Sequential(
            nn.Linear(width, inner_size), nn.GELU(), nn.Linear(inner_size, width), nn.Dropout(dropout)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        x = self.norms[0](x + self.filter(x))
        return self.norms[1](x + self.feed_forward(x))
