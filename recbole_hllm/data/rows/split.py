"""Split rows: a history and the several targets that follow it (LEARN, arXiv 2405.03988, section 3.3)."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.config.keys.learn import LEARNKeys
from recbole_hllm.data.batches import TrainLoader
from recbole_hllm.data.clock import check_clock_times
from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.columns import TARGET_ITEMS
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.flat import Padded, first_after
from recbole_hllm.data.rows.labelled import LabelledRows
from recbole_hllm.data.rows.positions import Positions
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.errors import ConfigError, DataError

_DAY = 86_400
_FEW = 0.1  # of the interactions; to train on fewer of them is worth a warning


@dataclass(frozen=True)
class SplitCut:
    """R histories and their targets, parts of users' events.

    Attributes:
        items: (E,) items of all events, users one after the other, each in time order.
        users: (R,) whose row it is.
        history, targets: (R, 2) begin and end of each in ``items``.
    """

    items: np.ndarray
    users: np.ndarray
    history: np.ndarray
    targets: np.ndarray

    def rows(self, index: np.ndarray, history_length: int, target_length: int) -> dict[str, torch.Tensor]:
        """``history`` (B, S), ``length`` (B,) and ``targets`` (B, T), padded on the right with 0; ``user`` (B,)."""
        (begin, end), (first, after) = self.history[index].T, self.targets[index].T
        history, targets = Padded(begin, end, history_length), Padded(first, after, target_length)
        return {
            "user": torch.from_numpy(self.users[index].astype(np.int64, copy=False)),
            "history": history.of(self.items, np.int64),
            "length": torch.from_numpy(history.lengths),
            "targets": targets.of(self.items, np.int64),
        }


def split_by_position(offsets: np.ndarray, history: int, targets: int, every: bool) -> tuple[np.ndarray, np.ndarray]:
    """The last events are targets of those before.

    Args:
        offsets: (U + 1,) user u's events are ``offsets[u]:offsets[u + 1]``.
        history, targets: most of each.
        every: also rows that end where the targets of the next begin, so that each event but a user's first is a
            target once. False: the latest row of each user.

    Returns:
        begin and end of histories and of targets, (R, 2) each, users in order, oldest first; at least one event is
        history.
    """
    lengths = np.diff(offsets)
    count = -(-(lengths - 1) // targets) if every else (lengths >= 2).astype(np.int64)
    count = np.maximum(count, 0)
    owner = np.repeat(np.arange(len(lengths)), count)
    from_end = np.repeat(np.cumsum(count), count) - 1 - np.arange(count.sum())
    end = offsets[1:][owner] - from_end * targets
    cut = np.maximum(end - targets, offsets[:-1][owner] + 1)
    begin = np.maximum(cut - history, offsets[:-1][owner])
    return np.stack([begin, cut], axis=1), np.stack([cut, end], axis=1)


def split_by_time(
    timestamps: np.ndarray,
    offsets: np.ndarray,
    history: tuple[int, float],
    targets: tuple[int, float],
    every: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Events of the last days are targets of those of the days before, counted back from the latest event of all.

    Args:
        timestamps: (E,) seconds, rising inside each user's events.
        offsets: (U + 1,) user u's events are ``offsets[u]:offsets[u + 1]``.
        history, targets: most events of each, and its seconds.
        every: also the periods before, each as long as the targets'. False: the latest one only.

    Returns:
        as ``split_by_position``; a user without an event in one of both has no row of that period. Of more events
        than allowed the last are taken.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    latest = float(timestamps.max()) if len(timestamps) else -np.inf
    period = ((latest - timestamps) // targets[1]).astype(np.int64)
    first = np.concatenate([[True], (np.diff(owner) != 0) | (np.diff(period) != 0)])[: len(owner)]
    cut = np.flatnonzero(first)
    end = np.append(cut[1:], len(owner))[: len(cut)]
    if not every:
        cut, end = cut[period[cut] == 0], end[period[cut] == 0]
    # A period begins one target period before its latest second; its history is what lies within the time before.
    oldest = latest - (period[cut] + 1) * targets[1] - history[1]
    begin = np.maximum(first_after(timestamps, offsets[owner[cut]], cut, oldest), cut - history[0])
    rows = begin < cut
    begin, cut, end = begin[rows], cut[rows], end[rows]
    return np.stack([begin, cut], axis=1), np.stack([np.maximum(cut, end - targets[0]), end], axis=1)


def cut_rows(settings: LEARNKeys, name: str, items: np.ndarray, timestamps: np.ndarray, users: np.ndarray) -> SplitCut:
    """Rows of the events that may be trained on, as the keys say.

    Args:
        name: of the data set.
        items, timestamps, users: (E,) of the events, sorted by user and time.

    Raises:
        DataError: nobody has both a history and a target, or one user alone.
    """
    numbers, counts = np.unique(users, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    most, every = (settings.MAX_ITEM_LIST_LENGTH, settings.target_length), settings.data_split
    if settings.split_by == "position":
        history, targets = split_by_position(offsets, *most, every)
    else:
        before, after = (most[0], _DAY * settings.history_days), (most[1], _DAY * settings.target_days)
        history, targets = split_by_time(timestamps, offsets, before, after, every)
    if len(history) == 0:
        days = f" of {settings.target_days:g} days after {settings.history_days:g}"
        raise DataError(
            f"data set '{name}': split_by: {settings.split_by}: none of {len(numbers)} users has training "
            f"interactions both before and in a period of targets{days if settings.split_by == 'time' else ''}"
        )
    owner = np.searchsorted(offsets, history[:, 0], side="right") - 1
    with_rows = len(np.unique(owner))
    if with_rows == 1 and settings.negatives == "users":
        raise DataError(
            f"data set '{name}': only user number {numbers[owner[0]]} has training interactions before targets, and "
            "the targets of other users are the negatives: there is nothing to learn from one user"
        )
    wanted = int((targets[:, 1] - targets[:, 0]).sum())
    log = logging.getLogger()
    log.log(
        logging.WARNING if wanted < _FEW * len(items) else logging.INFO,
        f"split_by: {settings.split_by}: {wanted} of {len(items)} training interactions are targets, in "
        f"{len(history)} rows of {with_rows} of {len(numbers)} users",
    )
    return SplitCut(items, numbers[owner], history, targets)


class SplitLoader(TrainLoader):
    """Rows of a history and its targets. One row that is left over at the end has the company of another, half the data
    away: its targets are the negatives."""

    def made_whole(self) -> bool:
        """Whether a row has company is a matter of the whole batch."""
        return True

    def collate_fn(self, index: Any) -> Any:
        """The rows of these numbers, which are at least two."""
        others = [(index[0] + len(self._dataset) // 2) % len(self._dataset)] if len(index) == 1 else []
        return super().collate_fn([*index, *others])


class SplitRows(Rows):
    """Histories and the targets that follow them, cut out of the events to train on. Evaluated on prefix rows.

    Args:
        data: the whole SequenceDataset, split.
        positions: flat positions of all training interactions.
        events: those that are trained on; all of them where it is not given.

    Attributes:
        events: (E,) flat positions of what is trained on.
        cut: the histories and targets of these.
    """

    name = "split"
    with_features = False
    loader = SplitLoader

    def __init__(self, data: SequenceDataset, positions: Positions, events: np.ndarray | None = None) -> None:
        super().__init__(data, positions)
        self.events = np.asarray(positions) if events is None else events
        self.cut = _cut_events(data, self.events)
        self.target_length = LEARNKeys.of(data.config).target_length

    @classmethod
    def of_training(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Rows of all training interactions, the first items of users included."""
        return cls(data, data.training_positions)

    @classmethod
    def of_evaluation(cls, data: SequenceDataset, targets: Positions) -> Rows:
        """Every target."""
        return PrefixRows(data, targets)

    def __len__(self) -> int:
        return len(self.cut.users)

    def batch(self, index: np.ndarray) -> Interaction:
        """Histories, their lengths and their targets, padded on the right with 0."""
        data = self.data
        rows = self.cut.rows(index, data.max_item_list_len, self.target_length)
        names = {
            "user": data.uid_field,
            "history": data.item_list_field,
            "length": data.item_list_length_field,
            "targets": TARGET_ITEMS,
        }
        return Interaction({names[name]: values for name, values in rows.items()})


class LabelledSplitRows(LabelledRows):
    """Trained on split rows of the events that can be in a history, evaluated on labelled rows."""

    @classmethod
    def of_training(cls, data: Any, targets: Positions) -> Rows:
        """With ``history_filter: positive`` the liked events."""
        everything = data.training_positions
        events = np.intersect1d(np.asarray(everything), data.events, assume_unique=True)
        if len(events) < len(everything):
            data.logger.info(
                f"history_filter: {data.settings.history_filter}: {len(events)} of {len(everything)} "
                "training interactions can be in a history and are trained on"
            )
        return SplitRows(data, everything, events)


def _cut_events(data: SequenceDataset, events: np.ndarray) -> SplitCut:
    if data.histories_given:
        raise ConfigError(
            f"benchmark_filename: {data.settings.model} cuts histories and targets itself, out of "
            "interactions; give files without ready-made histories"
        )
    users = data.sequences.users[data.sequences.of(events)]
    items, times = (values[events] for values in (data.sequences.items, data.sequences.timestamps))
    settings = LEARNKeys.of(data.config)
    if settings.split_by == "time":
        check_clock_times(times, data.dataset_name, "split_by: time", "days", "set split_by: position")
    return cut_rows(settings, data.dataset_name, items, times, users)
