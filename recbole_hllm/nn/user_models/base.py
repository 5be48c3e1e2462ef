"""What every user model is: the vectors of a history -> one vector, which items are scored with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Histories:
    """B histories, the oldest item first, padded on the right.

    Args:
        vectors: (B, S, C) what the user model reads of each item; those of padding are 0.
        items: (B, S) numbers of the items from 1; 0 is padding.
        lengths: (B,) how many items are real.
        times: (B, S) seconds of each item since 1970, float64; None: unknown.
        at: (B,) seconds of the recommendation; None: unknown.
    """

    vectors: Tensor
    items: Tensor
    lengths: Tensor
    times: Tensor | None = None
    at: Tensor | None = None

    @property
    def last(self) -> Tensor:
        """(B,) place of the last item; 0 of an empty history."""
        return (self.lengths - 1).clamp(min=0)

    def next_times(self) -> Tensor | None:
        """(B, S) seconds of what comes after each item: the next one, after the last the recommendation."""
        if self.times is None or self.at is None:
            return None
        following = torch.cat([self.times[:, 1:], self.times[:, -1:]], dim=1)
        following[torch.arange(len(self.last), device=self.last.device), self.last] = self.at
        return following

    def at_last(self, outputs: Tensor) -> Tensor:
        """(B, S, D) outputs -> (B, D) those at the last items."""
        return outputs[torch.arange(len(outputs), device=outputs.device), self.last]


class UserModel(nn.Module):
    """Reads histories.

    Args:
        settings: what its constructor was called with, plain values: the same make the same model again.

    Attributes:
        LANGUAGE_MODEL: name of the part that is a language model without words, whose weights lie in a folder of their
            own; None: there is none.
    """

    LANGUAGE_MODEL: ClassVar[str | None] = None

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = settings

    @classmethod
    def build(cls, settings: Mapping[str, Any], backbone: Any = None) -> "UserModel":
        """A user model as its ``settings`` say, with weights to be loaded; ``backbone`` is its language model."""
        return cls(**settings)

    @property
    def reads_times(self) -> bool:
        """Whether these settings need ``times`` and ``at``."""
        return False

    def own_weights(self) -> dict[str, Tensor]:
        """Those beside the language model's."""
        llm = f"{self.LANGUAGE_MODEL}."
        return {name: weight for name, weight in self.state_dict().items() if not name.startswith(llm)}

    def forward(self, histories: Histories) -> Tensor:
        """(B, E) vectors of the users, not normalised."""
        raise NotImplementedError

    def of_items(self, content: Tensor) -> Tensor:
        """(N, C) vectors as histories hold them -> (N, E) as items are scored. Default: they are the same."""
        return content
