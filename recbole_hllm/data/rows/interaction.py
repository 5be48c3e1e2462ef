"""Interaction rows: a user and an item."""


import numpy as np
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.flat import take


class InteractionRows(Rows):
    """Every training interaction, a user's first one too: its columns, and no history. In evaluation every target."""

    name = "interaction"
    reads_history = False

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: np.ndarray) -> Rows:
        """One row for each training interaction."""
        return cls(data, data.training_positions)

    def undrawable(self) -> tuple[int, str]:
        """What a user has in training is no negative of that user."""
        users, items = (self.table[field].numpy() for field in (self.data.uid_field, self.data.iid_field))
        own = np.bincount(np.unique(np.stack([users, items], axis=1), axis=0)[:, 0])
        user = self.data.id2token(self.data.uid_field, int(own.argmax()))
        return own.max(initial=0), f"user '{user}' has them all in training"

    def batch(self, index: Tensor) -> Interaction:
        """Columns of each interaction."""
        return take(self.table, index)
