"""Prefix rows: a target, and the items before it."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.columns import EVENT_TIME, EVENT_TIMES
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.flat import gather, over, padded_positions, take


class PrefixRows(Rows):
    """A target and the items before it, as RecBole's ``SequentialDataset`` has them.

    Args:
        data: the whole SequenceDataset, split.
        positions: (R,) flat positions of the targets.
        length: most items of a history; ``MAX_ITEM_LIST_LENGTH`` where it is not given.
        timed: times of the history and of the target are part of a row, and actions where there are any.
    """

    name = "prefix"

    def __init__(
        self, data: SequenceDataset, positions: np.ndarray, length: int | None = None, timed: bool = False
    ) -> None:
        super().__init__(data, positions)
        self.length, self.timed = length or data.max_item_list_len, timed

    def undrawable(self) -> tuple[int, str]:
        """All but the target can be drawn."""
        return 1, "it is the target"

    def batch(self, index: Tensor) -> Interaction:
        """Histories padded on the right with 0, the columns of their targets, and columns of the history as lists."""
        return self._given(index) if self.data.histories_given else self._cut(index)

    def _cut(self, index: Any) -> Interaction:
        data, targets = self.data, torch.from_numpy(self.positions)[index]
        users = torch.from_numpy(data.sequences.of(targets.numpy()))
        begin = torch.maximum(torch.from_numpy(data.sequences.offsets)[users], targets - self.length)
        positions, real = padded_positions(begin, targets, self.length)
        rows = dict(take(self.table, index).interaction)
        rows[data.item_list_length_field] = targets - begin
        unused = (data.settings.unused_col or {}).get("inter") or ()
        for field, values in data.history_feat.interaction.items():
            list_field = getattr(data, f"{field}_list_field", None)
            if list_field and list_field not in unused:
                rows[list_field] = gather(values, positions, real)
        if self.timed:
            times = torch.from_numpy(data.sequences.timestamps)
            rows |= {**data.events_at(positions, real), EVENT_TIME: times[targets]}
        return Interaction(rows)

    def _given(self, index: Any) -> Interaction:
        """Rows as the files of ``benchmark_filename`` hold them, of longer histories the last items."""
        data, rows = self.data, take(self.table, index)
        lengths, longest = rows[data.item_list_length_field], rows[data.item_list_field].shape[1]
        if self.timed:  # such files hold the time of the target only
            times = torch.from_numpy(data.sequences.timestamps[self.positions])[index]
            real = torch.arange(longest) < lengths[:, None]
            rows.update(Interaction({EVENT_TIMES: times[:, None] * real, EVENT_TIME: times}))
        if longest <= self.length:
            return rows
        begin = (lengths - self.length).clamp(min=0)
        positions, real = padded_positions(begin, lengths, self.length)
        rows[data.item_list_length_field] = lengths - begin
        suffix = data.settings.LIST_SUFFIX
        for field, values in rows.interaction.items():
            if (field.endswith(suffix) or field == EVENT_TIMES) and values.shape[1:2] == (longest,):
                rows[field] = values[torch.arange(len(values))[:, None], positions] * over(real, values[0])
        return rows
