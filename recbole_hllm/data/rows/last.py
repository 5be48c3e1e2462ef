"""Last rows: of each user's prefix rows the latest one."""

import numpy as np

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.positions import Positions
from recbole_hllm.data.rows.prefix import PrefixRows


class LastRows(Rows):
    """Trained on the latest target of each user and what is before it, evaluated on every target: prefix rows both."""

    name = "last"

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """The latest target of each user, of whom ready-made histories have several sequences."""
        latest, sequences = targets.latest(), data.sequences
        filled = np.flatnonzero(latest.counts)
        order = filled[np.lexsort((sequences.timestamps[latest.begin[filled]], sequences.users[filled]))]
        is_last = np.append(np.diff(sequences.users[order]) > 0, True)
        data.logger.info(f"the last of each user: {is_last.sum()} of {len(targets)} training targets are kept")
        chosen = np.zeros(len(latest.counts), dtype=np.int64)
        chosen[order[is_last]] = 1
        return PrefixRows(data, latest.most(chosen))

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Every target."""
        return PrefixRows(data, targets)
