"""Parts of a data set: what a loader asks of its ``_dataset``."""

from typing import Any

import numpy as np
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_hllm.data.rows.columns import ROW_NUMBER
from recbole_hllm.data.rows.flat import as_index, ranges, take
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
        inter_feat: columns of the interactions that the rows cover.
        targets: (R,) flat positions of these; of several targets of a row to evaluate the first.
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
            batch.update(Interaction({ROW_NUMBER: index}))
        return batch

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """(users, items) sparse matrix of the training interactions."""
        whole = self.whole
        rows = self.inter_feat if whole.histories_given else take(whole.history_feat, whole.training_positions)
        return self._create_sparse_matrix(rows, self.uid_field, self.iid_field, form, value_field)


class EvaluationPart(Part):
    """The rows of validation, or of the test.

    Args:
        whole: the SequenceDataset, split.
        rows: of this part; each stands at its first target.
        held_out: (P,) flat positions of all targets.
        offsets: (R + 1,) row ``r`` looks for the targets from ``offsets[r]`` to ``offsets[r + 1]``, by default one.
    """

    def __init__(self, whole: Any, rows: Any, held_out: np.ndarray, offsets: np.ndarray) -> None:
        super().__init__(whole, rows)
        self.held_out, self.held_out_offsets = held_out, offsets

    def positives(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers and items of all targets of some rows."""
        begin, end = (self.held_out_offsets[np.asarray(index) + side] for side in (0, 1))
        rows = np.repeat(np.arange(len(begin)), end - begin)
        return torch.from_numpy(rows), torch.from_numpy(self.sequences.items[self.held_out[ranges(begin, end)]])

    def histories(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers and items of everything before each row's target, the first of several, not cut to
        ``MAX_ITEM_LIST_LENGTH``."""
        targets = self.targets[np.asarray(index)]
        begin = self.sequences.offsets[self.sequences.of(targets)]
        rows = np.repeat(np.arange(len(targets)), targets - begin)
        return torch.from_numpy(rows), torch.from_numpy(self.sequences.items[ranges(begin, targets)])

    def longest_history(self) -> int:
        """Items in the longest of ``histories``, repetitions counted."""
        return int((self.targets - self.sequences.offsets[self.sequences.of(self.targets)]).max())

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
