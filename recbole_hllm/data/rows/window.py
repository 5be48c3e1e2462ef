"""Window rows: a chunk of a user's training data, every position of which is trained on."""

import math
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.config.keys.next_item import HistoryKeys, NextItemLossKeys
from recbole_hllm.data.batches import TrainLoader
from recbole_hllm.data.protocol import referenced
from recbole_hllm.data.rows import sequences as seq
from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.flat import Padded
from recbole_hllm.data.rows.positions import Positions
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.errors import ConfigError


def check_negatives(settings: NextItemLossKeys) -> None:
    """Raises ConfigError for ``per_position`` without a number."""
    if settings.negatives == "per_position" and not settings.num_negatives:
        raise ConfigError("num_negatives: negatives: per_position needs their number for each position")


class WindowLoader(TrainLoader):
    """Windows of S + 1 items, and their negatives in ``neg_<item>``.

    With ``negatives: shared`` and ``cached`` all positions of the batch have the same K, in the shape (1, K); K is
    ``num_negatives``, or S + 1 for each row of the batch when that is not set. With ``per_position`` each of the B x S
    targets has ``num_negatives`` of its own, in the shape (B, S, K). With ``catalogue`` they are all items, in
    the shape (1, N).

    Raises:
        ConfigError: ``per_position`` without a number.
    """

    def _init_batch_size_and_step(self) -> None:
        settings = NextItemLossKeys.of(self.config)
        self.step, self.negatives_field = settings.train_batch_size, settings.NEG_PREFIX + self.iid_field
        self.set_batch_size(self.step)
        self.all_items = torch.arange(1, self._dataset.item_num)[None] if settings.negatives == "catalogue" else None
        if self._sampler is None:  # a loss over the whole catalogue needs none
            return
        check_negatives(settings)
        self.num_negatives, self.shared = settings.num_negatives, settings.negatives != "per_position"

    def collate_fn(self, index: Any) -> Any:
        """The rows of these numbers, with negatives where the loss needs them."""
        rows = self.transform(self._dataset, self._dataset[index])
        if self.all_items is not None:
            rows[self.negatives_field] = self.all_items
        if self._sampler is None:
            return rows
        shape = self._shape_of_negatives(len(rows))
        drawn = torch.as_tensor(self._sampler.sampling(math.prod(shape)), dtype=torch.long)
        rows[self.negatives_field] = drawn.view(shape)
        return rows

    def _shape_of_negatives(self, n_rows: int) -> tuple[int, ...]:
        positions = self._dataset.max_item_list_len
        if self.shared:
            return 1, n_rows * (positions + 1) if self.num_negatives is None else self.num_negatives
        assert self.num_negatives is not None, "check_negatives"
        return n_rows, positions, self.num_negatives


class WindowRows(Rows):
    """Windows of S + 1 items, every one of which but the first is a target. Evaluated on prefix rows with times.

    Args:
        data: the whole SequenceDataset, split.
        positions: flat positions of all training interactions.

    Attributes:
        windows: begin and end positions of each, computed when asked for.
    """

    name = "window"
    longer_in_evaluation = True
    with_features = False
    loader = WindowLoader

    def __init__(self, data: SequenceDataset, positions: Positions) -> None:
        super().__init__(data, positions)
        self.windows = _cut(data)

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Windows of all training interactions, the first items of users included."""
        return cls(data, data.training_positions)

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Every target, with as long a history as an evaluation reads."""
        return PrefixRows(data, targets, length=HistoryKeys.of(data.config).MAX_ITEM_LIST_LENGTH_TEST, timed=True)

    @classmethod
    def draws_of_its_own(cls, config: Any) -> bool:
        """Not with ``negatives: catalogue``, nor for a model that needs none (``DRAWS_NEGATIVES``)."""
        return NextItemLossKeys.of(config).negatives != "catalogue"

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, index: np.ndarray) -> Interaction:
        """(B, S + 1) items and times of each window, padded on the right with 0; its length."""
        data = self.data
        owners, begin, end = self.windows.at(index)
        window = Padded(begin, end, data.max_item_list_len + 1)
        return Interaction(
            {
                data.uid_field: torch.from_numpy(data.sequences.users_of(owners)),
                data.item_list_field: window.of(data.sequences.items, np.int64),
                data.item_list_length_field: torch.from_numpy(window.lengths),
                **data.events_at(window),
            }
        )


def _cut(data: SequenceDataset) -> seq.Windows:
    settings = HistoryKeys.of(data.config)
    chunk, overlap = settings.data_split, 0 if "chunks" in referenced(settings.reference) else 1
    size, lengths = data.max_item_list_len + 1, data.train_lengths
    windows = seq.Windows(data.sequences.offsets[:-1], lengths, size=size, chunk=chunk, overlap=overlap)
    if not (chunk and overlap):  # windows have nothing in common, and may leave something out
        held, whole = windows.held(), int(lengths.sum())
        data.logger.info(f"windows of at most {size} hold {held} of {whole} training interactions")
    return windows
