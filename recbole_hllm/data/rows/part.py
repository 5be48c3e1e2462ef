"""Parts of a data set: what a loader asks of its ``_dataset``."""

from typing import Any

import numpy as np
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_hllm.data.rows.columns import ROW_NUMBER
from recbole_hllm.data.rows.flat import as_index
from recbole_hllm.data.rows.positions import Positions, ranges
from recbole_hllm.errors import DataError


class Part(SequentialDataset):
    """The rows of one phase, made when asked for.

    It is one of RecBole's data sets, so that loaders, samplers and models find all they ask for. What it does not have
    itself (ids, fields, features of users and items, sequences, counts) it shares with the whole data set.

    Args:
        whole: the SequenceDataset, split.
        rows: of this part.
        numbered: each row has its number in ``ROW_NUMBER``.

    Attributes:
        inter_feat: columns of the interactions that the rows cover; tensors are made when asked for.
        targets: flat positions of these; of several targets of a row to evaluate the first.
    """

    def __init__(self, whole: Any, rows: Any, numbered: bool = False) -> None:
        self.whole, self.rows, self.numbered = whole, rows, numbered
        self.inter_feat, self.targets = rows.table, rows.positions

    def __getattr__(self, name: str) -> Any:
        if name == "whole" or name.startswith("__"):  # a copy that is being made has no whole yet
            raise AttributeError(name)
        return getattr(self.whole, name)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any, join: bool = True) -> Any:
        batch = self._batch(index)
        return self.join(batch) if join and self.rows.with_features else batch

    def _batch(self, index: Any) -> Interaction:
        index = as_index(index, len(self))
        batch = self.rows.batch(index)
        if self.numbered:
            batch.update(Interaction({ROW_NUMBER: torch.from_numpy(index)}))
        return batch

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """(users, items) sparse matrix of the training interactions."""
        whole = self.whole
        rows = self.inter_feat if whole.histories_given else whole.history_feat.of(whole.training_positions)
        return self._create_sparse_matrix(rows, self.uid_field, self.iid_field, form, value_field)


class EvaluationPart(Part):
    """The rows of validation, or of the test.

    Args:
        whole: the SequenceDataset, split.
        rows: of this part; each stands at its first target.
        held_out: flat positions of all targets.
        together: a row looks for all targets of a sequence, not for one.
    """

    def __init__(self, whole: Any, rows: Any, held_out: Positions, together: bool) -> None:
        super().__init__(whole, rows)
        self.held_out = held_out
        # The numbers in `held_out` that rows begin with, and the end; row r begins with number r where this is None.
        self._first = np.unique(held_out.before) if together else None

    def positives(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers and items of all targets of some rows."""
        begin, end = self._targets_of(np.asarray(index))
        rows = np.repeat(np.arange(len(begin)), end - begin)
        return torch.from_numpy(rows), self._items(self.held_out[ranges(begin, end)])

    def _targets_of(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Begin and end numbers in ``held_out`` of what some rows look for."""
        if self._first is None:
            return index, index + 1
        return self._first[index], self._first[index + 1]

    def fewest_targets(self) -> int:
        """How many targets the row with fewest has."""
        return 1 if self._first is None else int(np.diff(self._first).min())

    def histories(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers and items of everything before each row's target, the first of several, not cut to
        ``MAX_ITEM_LIST_LENGTH``."""
        owners, targets = self.targets.at(index)
        begin = self.sequences.offsets[owners]
        rows = np.repeat(np.arange(len(targets)), targets - begin)
        return torch.from_numpy(rows), self._items(ranges(begin, targets))

    def _items(self, positions: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.sequences.items.take(positions).astype(np.int64, copy=False))

    def longest_history(self) -> int:
        """Items in the longest of ``histories``, repetitions counted."""
        latest = self.targets.latest()
        return int((latest.begin - self.sequences.offsets[:-1])[latest.counts > 0].max())

    def join(self, df: Interaction) -> Interaction:
        """RecBole's; where users alone are asked for, as ``full_sort_topk`` does, the first row of each."""
        if list(df.interaction) == [self.uid_field]:
            df = self._batch(self.first_rows(df[self.uid_field].numpy()))
        return super().join(df)

    def first_rows(self, users: Any) -> np.ndarray:
        """(U,) number of the first row of each of these users.

        Raises:
            DataError: a user has none in this part.
        """
        known, first = np.unique(self.inter_feat[self.uid_field].numpy(), return_index=True)
        if missing := sorted(set(np.asarray(users).tolist()) - set(known.tolist())):
            raise DataError(f"user {missing[0]} (internal id) has no row in this part of '{self.dataset_name}'")
        return first[np.searchsorted(known, users)]
