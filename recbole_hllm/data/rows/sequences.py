"""All users' histories as flat arrays, and who is trained, validated and tested on which position."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_hllm.data.rows.flat import as_index, first_after
from recbole_hllm.data.rows.positions import BLOCK, Positions, blocks_of, narrow, ranges


@dataclass(frozen=True)
class Sequences:
    """Every user's items in time order, end to end.

    Attributes:
        items: (T,) item ids, users one after the other, each in time order; int32 where they fit.
        timestamps: (T,) full-precision times of the interactions, whole numbers or float64.
        offsets: (U + 1,) sequence u's items are ``items[offsets[u]:offsets[u + 1]]``.
        owners: (U,) the user of each sequence. None: sequence u is that of user u, and that of user 0 (padding) is
            empty; data that comes as ready-made histories has a sequence for each of them.
    """

    items: np.ndarray
    timestamps: np.ndarray
    offsets: np.ndarray
    owners: np.ndarray | None = None

    @classmethod
    def from_sorted(cls, users: np.ndarray, items: np.ndarray, timestamps: np.ndarray, n_users: int) -> "Sequences":
        """From interactions already sorted by user and time."""
        lengths = np.zeros(n_users, dtype=np.int64)
        for begin in range(0, len(users), BLOCK):
            block = users[begin : begin + BLOCK]
            first = int(block[0])
            lengths[first : int(block[-1]) + 1] += np.bincount(block - first)
        return cls.from_lengths(lengths, items, timestamps)

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, items: np.ndarray, timestamps: np.ndarray) -> "Sequences":
        """From the interactions of all users, one after the other, and how many each has."""
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(items, timestamps, offsets)

    @classmethod
    def from_histories(
        cls,
        users: np.ndarray,
        histories: np.ndarray,
        history_lengths: np.ndarray,
        targets: np.ndarray,
        timestamps: np.ndarray,
    ) -> "Sequences":
        """From rows of a history and its target.

        Args:
            users: (R,) user of each row.
            histories: (R, L) items, padded on the right.
            history_lengths: (R,) real items of each history.
            targets: (R,) the item that follows.
            timestamps: (R,) time of the target; earlier items get the same.
        """
        rows = np.concatenate([histories, np.zeros((len(targets), 1), dtype=histories.dtype)], axis=1)
        rows[np.arange(len(targets)), history_lengths] = targets
        real = np.arange(rows.shape[1]) <= history_lengths[:, None]
        offsets = np.concatenate([[0], np.cumsum(history_lengths + 1)]).astype(np.int64)
        return cls(rows[real], np.repeat(timestamps, history_lengths + 1), offsets, users.astype(np.int64))

    @property
    def users(self) -> np.ndarray:
        """(U,) whose sequence it is."""
        return np.arange(len(self.offsets) - 1, dtype=np.int32) if self.owners is None else self.owners

    def users_of(self, numbers: np.ndarray) -> np.ndarray:
        """(B,) int64 users of some sequences."""
        return (numbers if self.owners is None else self.owners[numbers]).astype(np.int64, copy=False)

    @property
    def lengths(self) -> np.ndarray:
        """(U,) items of each sequence."""
        return narrow(np.diff(self.offsets))

    def of(self, positions: np.ndarray) -> np.ndarray:
        """The number of the sequence each flat position belongs to."""
        return np.searchsorted(self.offsets, positions, side="right") - 1


@dataclass(frozen=True)
class Split:
    """The targets of each phase.

    Attributes:
        train, valid, test: positions with at least one earlier item of the same user.
        train_lengths: (U,) how many of a user's first interactions may be trained on.
    """

    train: Positions
    valid: Positions
    test: Positions
    train_lengths: np.ndarray


def leave_one_out(sequences: Sequences, mode: str, short_users_tested: bool = False) -> Split:
    """RecBole's ``LS`` split: the last targets of a user are tested and validated.

    As in RecBole a user's first target is always trained on, so a user of three items has no validation target.

    Args:
        mode: ``valid_and_test``, ``valid_only`` or ``test_only``.
        short_users_tested: validate and test a user of three items too, as the official HLLM code does.
    """
    held_out = 2 if mode == "valid_and_test" else 1
    keep = 0 if short_users_tested else 1
    rows = _targets(sequences)
    out = np.minimum(held_out, np.maximum(rows - keep, 0))
    valid = out == 2 if mode == "valid_and_test" else out * (mode == "valid_only")
    return _grouped(sequences, rows - out, valid, out - valid)


def by_ratio(sequences: Sequences, split_ids: Callable[[int], list[int]]) -> Split:
    """RecBole's ``RS`` split inside each user: the first part of the targets is trained on.

    Args:
        split_ids: rows of a user -> where validation and test begin (RecBole's own rounding).
    """
    rows = _targets(sequences)
    bounds = np.zeros((rows.max(initial=0) + 1, 2), dtype=np.int64)
    for count in np.flatnonzero(np.bincount(rows)):
        if count:
            bounds[count] = split_ids(int(count))
    first, second = bounds[:, 0][rows], bounds[:, 1][rows]
    return _grouped(sequences, first, second - first, rows - second)


def by_global_ratio(sequences: Sequences, split_ids: Callable[[int], list[int]]) -> Split:
    """RecBole's ``RS`` split of all targets in time order, users not grouped; those of one time in their order."""
    rows = _targets(sequences)
    bounds = split_ids(int(rows.sum()))
    first, second = (_among_earliest(sequences, rows, bound) for bound in bounds)
    return _by_time(sequences, first, second - first, rows - second)


def _among_earliest(sequences: Sequences, rows: np.ndarray, number: int) -> np.ndarray:
    """(U,) how many targets of each sequence are among so many earliest ones of all."""
    if number == 0:
        return np.zeros_like(rows)
    times = _target_times(sequences, rows)
    times.partition(number - 1)
    latest, end = times[number - 1], sequences.offsets[1:]
    del times
    begin = end - rows
    before = first_after(sequences.timestamps, begin, end, latest, itself=True) - begin
    equal = first_after(sequences.timestamps, begin, end, latest) - begin - before
    left = number - before.sum() - (np.cumsum(equal) - equal)
    return before + np.clip(left, 0, equal)


def by_time(sequences: Sequences, ratios: list[float]) -> Split:
    """RecBole's ``TS`` split: targets after a point in time are tested, the rest is split inside each user."""
    ratios = [ratio / sum(ratios) for ratio in ratios]
    rows, end = _targets(sequences), sequences.offsets[1:]
    times = _target_times(sequences, rows)
    boundary = np.percentile(times, 100 * (1 - ratios[-1]), overwrite_input=True)
    del times
    begin = end - rows
    before = first_after(sequences.timestamps, begin, end, boundary) - begin
    trained = (before * (ratios[0] / (1 - ratios[2]))).astype(np.int64)
    return _by_time(sequences, trained, before - trained, rows - before)


def _targets(sequences: Sequences) -> np.ndarray:
    """(U,) targets of each sequence: every position but the first."""
    return np.maximum(sequences.lengths - 1, 0)


def _target_times(sequences: Sequences, rows: np.ndarray) -> np.ndarray:
    """(R,) times of all targets, a copy."""
    return Positions(sequences.offsets[1:] - rows, rows).pick(sequences.timestamps)


class Windows:
    """Windows of sequences, counted from their end, users in order, oldest window first; computed when asked for.

    Args:
        start: (U,) first flat position of each sequence.
        lengths: (U,) its length; one item alone gives no window.
        size: most items of a window, S + 1.
        chunk: False keeps the last window only.
        overlap: items that neighbouring windows share. 1 makes every item but the first a target exactly once;
            0 is the official HLLM code's, which also drops the oldest remainder of a sequence with more than
            one window.
    """

    def __init__(self, start: np.ndarray, lengths: np.ndarray, size: int, chunk: bool, overlap: int) -> None:
        self.start, self.lengths, self.size, self.stride = start, lengths, size, size - overlap
        if not chunk:
            count = np.ones_like(lengths)
        elif overlap:
            count = np.maximum(-(-(lengths - overlap) // self.stride), 1)
        else:
            count = np.maximum(lengths // size, 1)
        self._numbers = Positions(np.zeros_like(lengths), np.where(lengths >= 2, count, 0))

    def __len__(self) -> int:
        return len(self._numbers)

    def at(self, index: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the windows of these numbers: the sequence, and begin and end positions, (B,) each."""
        owners, number = self._numbers.at(index)
        from_end = self._numbers.counts_of(owners) - 1 - number
        end = self.start[owners] + self.lengths[owners] - from_end * self.stride
        return owners, np.maximum(end - self.size, self.start[owners]), end

    def held(self) -> int:
        """How many items all windows have, those that two of them share twice."""
        numbers = range(0, len(self), BLOCK)
        return sum(int(np.diff(self[begin : begin + BLOCK]).sum()) for begin in numbers)

    def __getitem__(self, index: Any) -> np.ndarray:
        """(B, 2) begin and end positions."""
        index = as_index(index, len(self))
        return np.stack(self.at(index)[1:], axis=1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.int64, copy=False)


def by_row(sequences: Sequences, phase: np.ndarray) -> Split:
    """Split of ready-made histories by the file of their row: a row's last item is its target.

    Windows are cut from rows that are no beginning of another training row of the same user, so that they train on
    every position once where a user's rows are one history, cut after each item.

    Args:
        phase: (U,) 0 training, 1 validation, 2 test.
    """
    last = sequences.offsets[1:] - 1
    has_history = sequences.lengths >= 2
    whole = (phase == 0) & ~_begins_another(sequences, phase == 0)
    train, valid, test = (Positions(last, has_history & (phase == number)) for number in range(3))
    return Split(train, valid, test, np.where(whole, sequences.lengths, 0))


def _begins_another(sequences: Sequences, chosen: np.ndarray) -> np.ndarray:
    """(U,) whether a chosen sequence is the beginning of the user's next longer chosen one."""
    result = np.zeros(len(chosen), dtype=bool)
    numbers = np.flatnonzero(chosen)
    numbers = numbers[np.lexsort((sequences.lengths[numbers], sequences.users[numbers]))]
    followed = np.flatnonzero(sequences.users[numbers[:-1]] == sequences.users[numbers[1:]])
    this, longer = numbers[followed], numbers[followed + 1]
    lengths = sequences.lengths[this]
    for begin, end in blocks_of(np.concatenate([[0], np.cumsum(lengths)])):
        own, other = sequences.offsets[this[begin:end]], sequences.offsets[longer[begin:end]]
        block = lengths[begin:end]
        differs = sequences.items[ranges(own, own + block)] != sequences.items[ranges(other, other + block)]
        owners = np.repeat(np.arange(len(block)), block)
        result[this[begin:end]] = np.bincount(owners[differs], minlength=len(block)) == 0
    return result


def by_file(sequences: Sequences, phase: np.ndarray) -> Split:
    """Split by the file an interaction came from (``benchmark_filename``).

    Args:
        phase: (T,) 0 training, 1 validation, 2 test; no phase comes before an earlier one inside a sequence.
    """
    begin, end, rows = sequences.offsets[:-1], sequences.offsets[1:], _targets(sequences)
    train_lengths, until_test = (first_after(phase, begin, end, number) - begin for number in (0, 1))
    first, second = (np.maximum(bound - 1, 0) for bound in (train_lengths, until_test))
    return _in_turn(sequences, first, second - first, rows - second, train_lengths)


def _grouped(sequences: Sequences, train: np.ndarray, valid: np.ndarray, test: np.ndarray) -> Split:
    """A split inside each user: the first item is always known, so it is part of the training data."""
    return _in_turn(sequences, train, valid, test, np.where(sequences.lengths > 0, train + 1, 0))


def _by_time(sequences: Sequences, train: np.ndarray, valid: np.ndarray, test: np.ndarray) -> Split:
    """A split by time over all users: one whose first target comes later brings no training data."""
    return _in_turn(sequences, train, valid, test, np.where(train > 0, train + 1, 0))


def _in_turn(sequences: Sequences, train: Any, valid: Any, test: Any, train_lengths: np.ndarray) -> Split:
    """So many targets of each sequence for each phase, one after the other."""
    first = sequences.offsets[:-1] + 1
    second = first + train
    third = second + valid
    parts = Positions(first, train), Positions(second, valid), Positions(third, test)
    return Split(*parts, narrow(train_lengths))
