"""Interaction rows: a user and an item."""

import numpy as np
from recbole.data.interaction import Interaction

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.positions import Positions


class InteractionRows(Rows):
    """Every training interaction, a user's first one too: its columns, and no history. In evaluation every target."""

    name = "interaction"
    reads_history = False

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """One row for each training interaction."""
        return cls(data, data.training_positions)

    def undrawable(self, counts: np.ndarray) -> str | None:
        """What a user has in training is no negative of that user."""
        users, drawable = self.data.sequences.users, np.flatnonzero(counts)
        rows = np.bincount(users, self.positions.counts, minlength=self.data.user_num)
        for user in np.flatnonzero(rows >= len(drawable)):
            positions = self.positions.of_runs(np.flatnonzero(users == user))
            if np.isin(drawable, self.data.sequences.items[positions]).all():
                return f"user '{self.data.id2token(self.data.uid_field, int(user))}' has them all in training"
        return None

    def batch(self, index: np.ndarray) -> Interaction:
        """Columns of each interaction."""
        return self.table.take(index)
