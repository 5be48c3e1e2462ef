"""A user model without weights: TextKNN's."""

from torch import Tensor

from recbole_hllm.nn.user_models.base import Histories, UserModel


class MeanUser(UserModel):
    """The mean of the vectors that are read."""

    def __init__(self) -> None:
        super().__init__({})

    def forward(self, histories: Histories) -> Tensor:
        """(B, C) vectors of the users, not normalised; zeros where the history is empty."""
        return histories.vectors.sum(dim=1) / histories.lengths.clamp(min=1)[:, None]
