"""Interaction rows: a user and an item."""

import numpy as np
from recbole.data.interaction import Interaction

from recbole_hllm.config.keys.user_items import scores_histories
from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.columns import WHOLE_HISTORY
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.positions import Positions


class InteractionRows(Rows):
    """Every training interaction, a user's first one too: its columns, and no history. In evaluation every target; with
    ``score_from: history`` all items before it are part of a row.

    Args:
        data: the whole SequenceDataset, split.
        positions: flat positions of the interactions.
        with_history: a row has ``WHOLE_HISTORY``.
    """

    name = "interaction"
    reads_history = False

    def __init__(self, data: SequenceDataset, positions: Positions, with_history: bool = False) -> None:
        super().__init__(data, positions)
        self.with_history = with_history

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """One row for each training interaction."""
        return cls(data, data.training_positions)

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Every target."""
        return cls(data, targets, with_history=scores_histories(data.config))

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
        rows = self.table.take(index)
        if self.with_history:
            rows[WHOLE_HISTORY] = self.data.whole_histories(*self.positions.at(index))
        return rows
