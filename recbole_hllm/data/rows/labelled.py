"""Labelled rows: an interaction, its 0/1 label, and the events before it in time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.hllm import HLLMRankerKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.columns import EVENT_TIME
from recbole_hllm.data.rows.flat import gather, padded_positions, take
from recbole_hllm.data.rows.labelled_dataset import LabelledDataset


class LabelledLoader(TrainDataLoader):
    """Labelled interactions; with ``loss_lambda`` also K items shared by the batch, (1, K).

    K is ``num_negatives``, or S + 1 for each row of the batch when that is not set. With ``histories_together`` rows
    are shuffled by history: those that have the same one follow each other. A model that normalises over the rows of a
    batch gets no batch of one row, see ``SeveralRows``.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        self.settings = HLLMRankerKeys.of(config)
        if shuffle and self.settings.histories_together:
            self.batch_sampler.sampler = GroupSampler(dataset.rows.history_numbers(), self.generator)
        if config.spec.batch_norm:
            # RecBole hands none to torch, and torch lets nobody set another one afterwards.
            object.__setattr__(self, "batch_sampler", SeveralRows(self.batch_sampler.sampler, self.step, False))

    def collate_fn(self, index: Any) -> Any:
        """The labelled rows of these numbers, with negatives where the loss needs them."""
        rows = self.transform(self._dataset, self._dataset[index])
        if self._sampler is not None:
            number = self.settings.num_negatives or len(rows) * (self._dataset.max_item_list_len + 1)
            drawn = torch.as_tensor(self._sampler.sampling(number), dtype=torch.long)
            rows[self.settings.NEG_PREFIX + self.iid_field] = drawn[None]
        return rows


class SeveralRows(torch.utils.data.BatchSampler):
    """Batches of two rows and more: a row that is left over at the end joins the batch before it.

    One row has no variance to normalise by. If it were left out, this epoch would not learn from it; beside a second
    row, that one would count twice, and the running variance would take that of two rows for one of a whole batch.
    Labelled data has at least two training rows, one of each class.
    """

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()
        held = next(batches)
        for batch in batches:
            if len(batch) == 1:
                held = held + batch
            else:
                yield held
                held = batch
        yield held

    def __len__(self) -> int:
        rows = len(self.sampler)  # type: ignore[arg-type]  # torch allows samplers without a length, RecBole has none
        return max(super().__len__() - (rows % self.batch_size == 1), 1)


class GroupSampler(torch.utils.data.Sampler[int]):
    """Rows in the random order of the groups they belong to, and in their own order inside a group.

    Args:
        groups: (R,) number of each row's group, from 0 on.
        generator: of the order.
    """

    def __init__(self, groups: np.ndarray, generator: torch.Generator) -> None:
        self.groups, self.generator = torch.from_numpy(groups), generator

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Any]:
        place = torch.randperm(int(self.groups.max()) + 1, generator=self.generator)
        return iter(torch.argsort(place[self.groups], stable=True).tolist())


class LabelledEvalLoader(AbstractDataLoader):
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

    def __init__(self, data: LabelledDataset, positions: np.ndarray) -> None:
        super().__init__(data, positions)
        self.with_histories = data.config.spec.model.READS_HISTORY

    @classmethod
    def draws_of_its_own(cls, config: Any) -> bool:
        """For a second loss that compares with items, ``loss_lambda``."""
        return bool(HLLMRankerKeys.of(config).loss_lambda)

    def history_numbers(self) -> np.ndarray:
        """(R,) which history each row has: rows of one user have the same until something is added to it."""
        return np.unique(self.data.history_bounds[self.positions], axis=0, return_inverse=True)[1].reshape(-1)

    def batch(self, index: Tensor) -> Interaction:
        """User, item, label and time of each row, and its history padded on the right with 0, where models read one."""
        data, targets = self.data, torch.from_numpy(self.positions)[index]
        rows = dict(take(self.table, index).interaction)
        rows[data.label_field] = torch.from_numpy(data.labels)[targets]
        if self.with_histories:
            begin, end = torch.from_numpy(data.history_bounds)[targets].unbind(1)
            places, real = padded_positions(begin, end, data.max_item_list_len)
            positions = torch.from_numpy(data.events)[places]
            others = data.settings.NEG_PREFIX + data.item_list_field
            rows[data.item_list_length_field] = end - begin
            rows[data.item_list_field] = gather(torch.from_numpy(data.sequences.items), positions, real)
            rows[others] = gather(torch.from_numpy(data.other_items), positions, real)
            rows |= data.events_at(positions, real)
            rows[EVENT_TIME] = torch.from_numpy(data.sequences.timestamps)[targets]
        return Interaction(rows)
