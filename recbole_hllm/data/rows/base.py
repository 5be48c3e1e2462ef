"""Rows: what each kind of training and evaluation row says of itself."""

from typing import Any

import numpy as np
from recbole.data.interaction import Interaction

from recbole_hllm.data.batches import TrainLoader
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.positions import Positions


class Rows:
    """Rows of one part of a data set; a row is computed from the flat sequences when it is asked for.

    The class is what a model names: it says how such rows are trained on and evaluated. Its objects are the rows of a
    part.

    Args:
        data: the whole SequenceDataset, split.
        positions: flat positions that the rows cover; see each kind.

    Attributes:
        name: for the log.
        labelled: rows have a 0/1 label each, and are evaluated one by one instead of ranking the catalogue.
        reads_history: a row has what was before it; False where it is a user and an item alone.
        longer_in_evaluation: a history may be longer in evaluation than in training (``MAX_ITEM_LIST_LENGTH_TEST``).
        with_features: columns of the user and the item are joined to a row.
        data_set: class of the data set that has such rows.
        loader: class of the loader of a training part.
        table: columns of ``.inter`` at the positions; tensors are made when asked for.
    """

    name: str
    labelled = False
    reads_history = True
    longer_in_evaluation = False
    with_features = True
    data_set = SequenceDataset
    loader = TrainLoader

    def __init__(self, data: SequenceDataset, positions: Positions) -> None:
        self.data, self.positions = data, positions
        self.table = data.table_at(positions)

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> "Rows":
        """Rows of the training part.

        Args:
            data: the whole data set, split.
            targets: flat positions of the training targets.
        """
        return cls(data, targets)

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: Positions) -> "Rows":
        """Rows of a part to evaluate, one for each of its targets."""
        return cls(data, targets)

    @classmethod
    def draws_of_its_own(cls, config: Any) -> bool:
        """Whether a training batch brings drawn items where ``train_neg_sample_args`` asks for none."""
        return False

    def undrawable(self, counts: np.ndarray) -> str | None:
        """In words the row that has no negative among some items; None where each row has one.

        Args:
            counts: (n_items,) above 0 for the items that can be drawn.
        """
        return None

    def item_counts(self) -> np.ndarray:
        """(n_items,) how often each item stands in the interactions that the rows cover."""
        return self.positions.count(self.data.sequences.items, self.data.item_num)

    def __len__(self) -> int:
        return len(self.positions)

    def batch(self, index: np.ndarray) -> Interaction:
        """The rows of these numbers."""
        raise NotImplementedError
