"""What recommends by a weighted sum of z-scores: each part's scores of a user, less their mean, divided by their
standard deviation, both over all items."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import Beside, Part, ServedBlend, ServedPairs, ServedTable, ServedVectors

# Scores whose deviation is a smaller share of their size differ by rounding alone, and say nothing.
_ROUNDING = 1e-5
_AT_ONCE = 2**16  # rows of vectors that are made float64


def z_scores(scores: Tensor) -> Tensor:
    """(B, N) each row less its mean, divided by its standard deviation; both of all items but the padding item 0. A row
    of scores that are equal but for rounding becomes 0."""
    real = scores[:, 1:]
    deviation = real.std(1, correction=0, keepdim=True)
    tells = deviation > _ROUNDING * real.abs().amax(1, keepdim=True)
    return (scores - real.mean(1, keepdim=True)) * torch.where(tells, 1 / deviation, 0)


class Spread:
    """Mean and standard deviation of the products of any vector with all items, without the products.

    Args:
        items: (N, E), row 0 being padding.
    """

    def __init__(self, items: Tensor) -> None:
        blocks = items[1:].split(_AT_ONCE)
        count = max(1, len(items) - 1)
        self.mean = sum((block.double().sum(0) for block in blocks), items.new_zeros(items.shape[1]).double()) / count
        squares = items.new_zeros(items.shape[1], items.shape[1]).double()
        for block in blocks:
            centred = block.double() - self.mean
            squares += centred.T @ centred
        self.covariance = squares / count

    def __call__(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """(B, E) -> (B, 1) means, and 1 / standard deviation, 0 where scores differ by rounding alone; float64."""
        users = users.double()
        mean = users @ self.mean[:, None]
        deviation = ((users @ self.covariance) * users).sum(1, keepdim=True).clamp(min=0).sqrt()
        return mean, torch.where(deviation > _ROUNDING * (mean.abs() + deviation), 1 / deviation, 0)


class ServedZScores(ServedBlend):
    """A weighted sum of z-scores; arguments are those of a blend.

    Of parts with vectors it is a product: those of users are divided by the standard deviation of their scores, which
    follows from the covariance of the items' vectors. A last number of each user takes the means away. Other parts
    score all items.
    """

    def __init__(self, parts: Sequence[Part], mix: Tensor, bounds: Sequence[int], length: int) -> None:
        super().__init__(parts, mix, bounds, length)
        self._spreads = [Spread(part.items) if isinstance(part, ServedVectors) else None for part in self.parts]

    @property
    def scores_all(self) -> bool:
        """Whether there are other parts than those with vectors."""
        return None in self._spreads

    def users(self, rows: Rows, further: Tensor | None = None) -> Tensor:
        """(B, E + 1) vectors of users; errors are those of a blend."""
        self._refuse(further)
        weights, found = self._weights(rows), []
        shift = weights.new_zeros(len(weights), 1).double()
        for place, (part, spread) in enumerate(zip(self.parts, self._spreads, strict=True)):
            if spread is not None:
                users = part.users(rows)
                mean, less = spread(users)
                factor = weights[:, place, None] * less
                found.append((factor * users).float())
                shift = shift - factor * mean
        return torch.cat([*found, shift.float()], dim=1)

    def scores(self, rows: Rows, further: Tensor | None = None) -> Tensor:
        """(B, N) scores of all items; 0 is padding. Errors are those of a blend."""
        weights = self._weights(rows)
        scores = self.users(rows, further) @ self.items.T
        for place, part in enumerate(self.parts):
            if isinstance(part, ServedPairs | ServedTable):
                scores += weights[:, place, None] * z_scores(part.scores(rows))
        return scores

    def beside(self, rows: Rows) -> Beside | None:
        """Nothing where all parts have vectors. Others are in ``scores``, which who recommends then asks for."""
        return None

    def _side_by_side(self) -> Tensor:
        vectors = [part.items for part in self.parts if isinstance(part, ServedVectors)]
        return torch.cat([*vectors, self.parts[0].items.new_ones(len(self.parts[0].items), 1)], dim=1)
