"""Labelled rows: an interaction, its 0/1 label, and the events before it in time."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.config.keys.hllm import HLLMRankerKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.batches import BatchLoader, TrainLoader
from recbole_hllm.data.order import Grouped, Order
from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.columns import EVENT_TIME
from recbole_hllm.data.rows.flat import Padded
from recbole_hllm.data.rows.labelled_dataset import LabelledDataset
from recbole_hllm.data.rows.positions import Positions


class LabelledLoader(TrainLoader):
    """Labelled interactions; with ``loss_lambda`` also K items shared by the batch, (1, K).

    K is ``num_negatives``, or S + 1 for each row of the batch when that is not set. With ``histories_together`` rows
    are shuffled by history: those that have the same one follow each other. A model that normalises over the rows of a
    batch gets no batch of one row, which has no variance: a row that is left over at the end joins the batch before it.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        self.settings = HLLMRankerKeys.of(config)
        self.least_rows = 2 if config.spec.batch_norm else 0
        super().__init__(config, dataset, sampler, shuffle=shuffle)

    def row_order(self) -> Order:
        """By history, or one by one."""
        if self.shuffle and self.settings.histories_together:
            return Grouped(self._dataset.rows.history_numbers(), self.generator)
        return super().row_order()

    def collate_fn(self, index: Any) -> Any:
        """The labelled rows of these numbers, with negatives where the loss needs them."""
        rows = self.transform(self._dataset, self._dataset[index])
        if self._sampler is not None:
            number = self.settings.num_negatives
            if number is None:
                number = len(rows) * (self._dataset.max_item_list_len + 1)
            rows[self.settings.NEG_PREFIX + self.iid_field] = torch.from_numpy(self._sampler.sampling(number))[None]
        return rows


class LabelledEvalLoader(BatchLoader):
    """Labelled interactions to score one by one, in the data set's order.

    Attributes:
        candidates: None, rows are their own candidates.
    """

    candidates = None

    def __init__(self, config: Any, dataset: Any) -> None:
        self.sample_size = len(dataset)
        super().__init__(config, dataset, sampler=None, shuffle=False)

    def _init_batch_size_and_step(self) -> None:
        self.step = RunKeys.of(self.config).eval_batch_size
        self.set_batch_size(self.step)

    def collate_fn(self, index: Any) -> Any:
        """A batch as RecBole's trainer expects it: rows, and nothing of what rankings need."""
        return self.transform(self._dataset, self._dataset[index]), None, None, None


class LabelledRows(Rows):
    """Interactions with labels, trained on and evaluated one by one, and the history of each.

    Context-aware models read no history and get none.
    """

    name = "labelled"
    labelled = True
    data_set = LabelledDataset
    loader = LabelledLoader

    def __init__(self, data: LabelledDataset, positions: Positions) -> None:
        super().__init__(data, positions)
        self.with_histories = data.config.spec.model.READS_HISTORY

    @classmethod
    def draws_of_its_own(cls, config: Any) -> bool:
        """For a second loss that compares with items, ``loss_lambda``."""
        return bool(HLLMRankerKeys.of(config).loss_lambda)

    def history_numbers(self) -> np.ndarray:
        """(R,) which history each row has: rows of one user have the same until something is added to it."""
        bounds = self.positions.pick(self.data.history_bounds)
        return np.unique(bounds, axis=0, return_inverse=True)[1].reshape(-1)

    def batch(self, index: np.ndarray) -> Interaction:
        """User, item, label and time of each row, and its history padded on the right with 0, where models read one."""
        data, targets = self.data, self.positions[index]
        rows = dict(self.table.at(targets).interaction)
        rows[data.label_field] = torch.from_numpy(data.labels[targets])
        if self.with_histories:
            begin, end = data.history_bounds[targets].astype(np.int64).T
            history = Padded(begin, end, data.max_item_list_len).through(data.events)
            others = data.settings.NEG_PREFIX + data.item_list_field
            rows[data.item_list_length_field] = torch.from_numpy(history.lengths)
            rows[data.item_list_field] = history.of(data.sequences.items, np.int64)
            rows[others] = history.of(data.other_items, np.int64)
            rows |= data.events_at(history)
            rows[EVENT_TIME] = torch.from_numpy(data.sequences.timestamps[targets].astype(np.float64))
        return Interaction(rows)
