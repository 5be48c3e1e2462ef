"""Prefix rows: a target, and the items before it."""


import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.columns import EVENT_TIME, EVENT_TIMES
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.flat import Padded
from recbole_hllm.data.rows.positions import Positions


class PrefixRows(Rows):
    """A target and the items before it, as RecBole's ``SequentialDataset`` has them.

    Args:
        data: the whole SequenceDataset, split.
        positions: flat positions of the targets.
        length: most items of a history; ``MAX_ITEM_LIST_LENGTH`` where it is not given.
        timed: times of the history and of the target are part of a row, and actions where there are any.
    """

    name = "prefix"

    def __init__(
        self, data: SequenceDataset, positions: Positions, length: int | None = None, timed: bool = False
    ) -> None:
        super().__init__(data, positions)
        self.length, self.timed = length or data.max_item_list_len, timed

    def undrawable(self, counts: np.ndarray) -> str | None:
        """All but the target can be drawn."""
        return "it is the target" if np.count_nonzero(counts) <= 1 else None

    def batch(self, index: np.ndarray) -> Interaction:
        """Histories padded on the right with 0, the columns of their targets, and columns of the history as lists."""
        return self._given(index) if self.data.histories_given else self._cut(index)

    def _cut(self, index: np.ndarray) -> Interaction:
        data = self.data
        owners, targets = self.positions.at(index)
        history = Padded(np.maximum(data.sequences.offsets[owners], targets - self.length), targets, self.length)
        rows = dict(self.table.at(targets, owners).interaction)
        rows[data.item_list_length_field] = torch.from_numpy(history.lengths)
        unused = (data.settings.unused_col or {}).get("inter") or ()
        for field, column in data.history_feat.kept.items():
            list_field = getattr(data, f"{field}_list_field", None)
            if list_field and list_field not in unused:
                rows[list_field] = history.of(column.values, column.dtype)
        if self.timed:
            rows |= {**data.events_at(history), EVENT_TIME: self._times(targets)}
        return Interaction(rows)

    def _times(self, targets: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.data.sequences.timestamps[targets].astype(np.float64, copy=False))

    def _given(self, index: np.ndarray) -> Interaction:
        """Rows as the files of ``benchmark_filename`` hold them, of longer histories the last items."""
        data, rows = self.data, self.table.take(index)
        lengths, longest = rows[data.item_list_length_field], rows[data.item_list_field].shape[1]
        if self.timed:  # such files hold the time of the target only
            times = self._times(self.positions[index])
            real = torch.arange(longest) < lengths[:, None]
            rows.update(Interaction({EVENT_TIMES: times[:, None] * real, EVENT_TIME: times}))
        if longest <= self.length:
            return rows
        end = np.arange(len(lengths)) * longest + lengths.numpy()
        last = Padded(end - np.minimum(lengths.numpy(), self.length), end, self.length)
        rows[data.item_list_length_field] = torch.from_numpy(last.lengths)
        suffix = data.settings.LIST_SUFFIX
        for field, values in rows.interaction.items():
            if (field.endswith(suffix) or field == EVENT_TIMES) and values.shape[1:2] == (longest,):
                flat = values.numpy()
                rows[field] = last.of(flat.reshape(-1, *flat.shape[2:]), flat.dtype.type)
        return rows
