"""Whole rows: all that any model may read of a history, for a model that is made of trained ones."""

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.last import LastRows
from recbole_hllm.data.rows.positions import Positions
from recbole_hllm.data.rows.prefix import PrefixRows


class WholeRows(Rows):
    """Evaluated on every target: prefix rows with times, and actions where there are any. Nothing is learned from the
    rows of training, so that there is one for each user."""

    name = "whole"

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """The latest target of each user."""
        return LastRows.of_training(data, targets)

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Every target."""
        return PrefixRows(data, targets, timed=True)
