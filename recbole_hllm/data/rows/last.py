"""Last rows: of each user's prefix rows the latest one."""


import numpy as np

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.prefix import PrefixRows


class LastRows(Rows):
    """Trained on the latest target of each user and what is before it, evaluated on every target: prefix rows both."""

    name = "last"

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: np.ndarray) -> Rows:
        """The latest target of each user, of whom ready-made histories have several sequences."""
        sequences = data.sequences
        users = sequences.users[sequences.of(targets)]
        order = np.lexsort((sequences.timestamps[targets], users))
        is_last = np.append(np.diff(users[order]) > 0, True)
        data.logger.info(f"the last of each user: {is_last.sum()} of {len(targets)} training targets are kept")
        return PrefixRows(data, np.sort(targets[order[is_last]]))

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: np.ndarray) -> Rows:
        """Every target."""
        return PrefixRows(data, targets)
