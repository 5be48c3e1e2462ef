"""Whole rows: all that any model may read of a history, for a model that is made of trained ones."""

import numpy as np
from recbole.data.interaction import Interaction

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.columns import WHOLE_HISTORY
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.last import LastRows
from recbole_hllm.data.rows.positions import Positions
from recbole_hllm.data.rows.prefix import PrefixRows


class WholeRows(Rows):
    """Evaluated on every target: prefix rows with times, actions where there are any, and all items before the target.
    Nothing is learned from the rows of training, so that there is one for each user."""

    name = "whole"

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """The latest target of each user."""
        return LastRows.of_training(data, targets)

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Every target."""
        return _UncutRows(data, targets, timed=True)


class _UncutRows(PrefixRows):
    """Prefix rows, beside whose last items all of them stand."""

    def batch(self, index: np.ndarray) -> Interaction:
        """As prefix rows, and ``WHOLE_HISTORY``."""
        rows = super().batch(index)
        rows[WHOLE_HISTORY] = self.data.whole_histories(*self.positions.at(index))
        return rows
