"""What recommends by a weighted sum of z-scores: each part's scores of a user, less their mean, divided by their
standard deviation, both over all items."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import Beside, Part, ServedBlend, ServedPairs, ServedTable, ServedVectors, beside_of

_TINY = 1e-12


def z_scores(scores: Tensor) -> Tensor:
    """(B, N) each row less its mean, divided by its standard deviation; both of all items but the padding item 0. A row
    of equal scores becomes 0."""
    real = scores[:, 1:]
    deviation = real.std(1, correction=0, keepdim=True)
    return (scores - real.mean(1, keepdim=True)) / deviation.clamp(min=_TINY)


class Spread:
    """Mean and standard deviation of the products of any vector with all items, without the products.

    Args:
        items: (N, E), row 0 being padding.
    """

    def __init__(self, items: Tensor) -> None:
        real = items[1:].double()
        self.mean = real.mean(0)
        centred = real - self.mean
        self.covariance = centred.T @ centred / len(real)

    def __call__(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """(B, E) -> (B, 1) means and (B, 1) standard deviations, float64."""
        users = users.double()
        variance = ((users @ self.covariance) * users).sum(1, keepdim=True)
        return users @ self.mean[:, None], variance.clamp(min=0).sqrt()


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
        shift = weights.new_zeros(len(weights), 1)
        for place, (part, spread) in enumerate(zip(self.parts, self._spreads, strict=True)):
            if spread is not None:
                users = part.users(rows)
                mean, deviation = spread(users)
                factor = weights[:, place, None] / deviation.clamp(min=_TINY)
                found.append((factor * users).float())
                shift = shift - (factor * mean).float()
        return torch.cat([*found, shift], dim=1)

    def beside(self, rows: Rows) -> Beside | None:
        """The other parts, all items of each row."""
        weights, others = self._weights(rows), []
        for place, part in enumerate(self.parts):
            if isinstance(part, ServedPairs | ServedTable):
                others.append(weights[:, place, None] * z_scores(part.scores(rows)))
        return beside_of(torch.stack(others).sum(0)) if others else None

    def _side_by_side(self) -> Tensor:
        vectors = [part.items for part in self.parts if isinstance(part, ServedVectors)]
        return torch.cat([*vectors, self.parts[0].items.new_ones(len(self.parts[0].items), 1)], dim=1)
