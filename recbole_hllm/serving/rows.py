"""Histories as numbers: what is asked of a served model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Numbers from here on are of items that only some rows have, whose vectors come with them.
FURTHER = 2**40


@dataclass(frozen=True)
class Rows:
    """B histories, the oldest item first, padded on the right.

    Args:
        items: (B, S) numbers of items from 1, or from ``FURTHER`` on; 0 is padding.
        lengths: (B,) how many are real.
        times: (B, S) seconds of each item since 1970, float64; None: unknown.
        at: (B,) seconds of the recommendation; None: unknown.
    """

    items: Tensor
    lengths: Tensor
    times: Tensor | None = None
    at: Tensor | None = None

    @classmethod
    def of(
        cls,
        histories: Sequence[Sequence[int]],
        times: Sequence[Sequence[float]] | None = None,
        at: Sequence[float] | None = None,
    ) -> "Rows":
        """Of lists of different lengths."""
        width = max(1, *map(len, histories)) if histories else 1
        items = torch.zeros(len(histories), width, dtype=torch.long)
        seconds = None if times is None else torch.zeros(len(histories), width, dtype=torch.float64)
        for row, history in enumerate(histories):
            items[row, : len(history)] = torch.tensor(history, dtype=torch.long)
            if seconds is not None and times is not None:
                seconds[row, : len(history)] = torch.tensor(times[row], dtype=torch.float64)
        lengths = torch.tensor([len(history) for history in histories], dtype=torch.long)
        return cls(items, lengths, seconds, None if at is None else torch.tensor(at, dtype=torch.float64))

    @property
    def last(self) -> Tensor:
        """(B,) number of the last item; 0 of an empty history."""
        place = (self.lengths - 1).clamp(min=0)
        return self.items.gather(1, place[:, None])[:, 0]

    def some(self, first: int, last: int) -> "Rows":
        """Rows from ``first`` to before ``last``."""
        parts = (self.items, self.lengths, self.times, self.at)
        return Rows(*(None if part is None else part[first:last] for part in parts))  # type: ignore[arg-type]

    def cut(self, length: int) -> "Rows":
        """The last ``length`` items of each history."""
        if self.items.shape[1] <= length:
            return self
        kept, place = self.lengths.clamp(max=length), torch.arange(length, device=self.lengths.device)
        source = ((self.lengths - kept)[:, None] + place).clamp(max=self.items.shape[1] - 1)
        real = place < kept[:, None]
        times = None if self.times is None else self.times.gather(1, source) * real
        return Rows(self.items.gather(1, source) * real, kept, times, self.at)

    def to(self, device: torch.device) -> "Rows":
        """The same on a device."""
        times, at = (None if part is None else part.to(device) for part in (self.times, self.at))
        return Rows(self.items.to(device), self.lengths.to(device), times, at)
