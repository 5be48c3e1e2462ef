"""User rows: a user alone, whose training interactions the model knows."""

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.interaction import InteractionRows
from recbole_hllm.data.rows.positions import Positions


class UserRows(Rows):
    """Every user with training interactions once, as RecBole's ``UserDataLoader`` has them; evaluated as interaction
    rows are, on every target.

    Args:
        data: the whole SequenceDataset, split.
        positions: flat positions of all training interactions.

    Attributes:
        users: (R,) ids, in rising order.
    """

    name = "user"
    reads_history = False
    with_features = False

    def __init__(self, data: SequenceDataset, positions: Positions) -> None:
        super().__init__(data, positions)
        self.users = np.unique(data.sequences.users[positions.counts > 0])

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """One row for each user of the training interactions."""
        return cls(data, data.training_positions)

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Every target."""
        return InteractionRows.of_evaluation(data, targets)

    def __len__(self) -> int:
        return len(self.users)

    def batch(self, index: np.ndarray) -> Interaction:
        """The users."""
        return Interaction({self.data.uid_field: torch.from_numpy(self.users[index].astype(np.int64))})
