"""All users' histories as flat arrays, and who is trained, validated and tested on which position."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sequences:
    """Every user's items in time order, end to end.

    Attributes:
        items: (T,) item ids, users one after the other, each in time order.
        timestamps: (T,) full-precision times of the interactions.
        offsets: (U + 1,) sequence u's items are ``items[offsets[u]:offsets[u + 1]]``.
        users: (U,) whose sequence it is. One sequence a user, user 0 (padding) empty; data that comes as ready-made
            histories has a sequence for each of them.
    """

    items: np.ndarray
    timestamps: np.ndarray
    offsets: np.ndarray
    users: np.ndarray

    @classmethod
    def from_sorted(cls, users: np.ndarray, items: np.ndarray, timestamps: np.ndarray, n_users: int) -> "Sequences":
        """From interactions already sorted by user and time."""
        offsets = np.zeros(n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(users, minlength=n_users), out=offsets[1:])
        return cls(items, timestamps, offsets, np.arange(n_users))

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
        return cls(rows[real], np.repeat(timestamps, history_lengths + 1), offsets, users)

    @property
    def lengths(self) -> np.ndarray:
        """(U,) items of each sequence."""
        return np.diff(self.offsets)

    def of(self, positions: np.ndarray) -> np.ndarray:
        """The number of the sequence each flat position belongs to."""
        return np.searchsorted(self.offsets, positions, side="right") - 1


@dataclass(frozen=True)
class Split:
    """Flat positions of the targets of each phase.

    Attributes:
        train, valid, test: positions with at least one earlier item of the same user.
        train_lengths: (U,) how many of a user's first interactions may be trained on.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    train_lengths: np.ndarray


def targets_of(lengths: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Every position but each user's first."""
    positions = np.arange(offsets[-1], dtype=np.int64)
    first = offsets[:-1][lengths > 0]
    return np.delete(positions, first)


def leave_one_out(sequences: Sequences, mode: str, short_users_tested: bool = False) -> Split:
    """RecBole's ``LS`` split: the last targets of a user are tested and validated.

    As in RecBole a user's first target is always trained on, so a user of three items has no validation target.

    Args:
        mode: ``valid_and_test``, ``valid_only`` or ``test_only``.
        short_users_tested: validate and test a user of three items too, as the official HLLM code does.
    """
    held_out = 2 if mode == "valid_and_test" else 1
    keep = 0 if short_users_tested else 1
    rows = np.maximum(sequences.lengths - 1, 0)
    out = np.minimum(held_out, np.maximum(rows - keep, 0))
    last = sequences.offsets[1:] - 1
    empty = np.empty(0, dtype=np.int64)
    if mode == "valid_only":
        valid, test = last[out >= 1], empty
    elif mode == "test_only":
        valid, test = empty, last[out >= 1]
    else:
        valid, test = last[out == 2] - 1, last[out >= 1]
    return _grouped(sequences, rows - out, valid, test)


def by_ratio(sequences: Sequences, split_ids: Callable[[int], list[int]]) -> Split:
    """RecBole's ``RS`` split inside each user: the first part of the targets is trained on.

    Args:
        split_ids: rows of a user -> where validation and test begin (RecBole's own rounding).
    """
    rows = np.maximum(sequences.lengths - 1, 0)
    bounds = np.zeros((len(rows), 2), dtype=np.int64)
    for count in np.unique(rows[rows > 0]):
        bounds[rows == count] = split_ids(int(count))
    targets = targets_of(sequences.lengths, sequences.offsets)
    users = sequences.of(targets)
    rank = targets - sequences.offsets[users] - 1
    valid = targets[(rank >= bounds[users, 0]) & (rank < bounds[users, 1])]
    return _grouped(sequences, bounds[:, 0], valid, targets[rank >= bounds[users, 1]])


def by_global_ratio(sequences: Sequences, split_ids: Callable[[int], list[int]]) -> Split:
    """RecBole's ``RS`` split of all targets in time order, users not grouped."""
    targets = targets_of(sequences.lengths, sequences.offsets)
    ordered = targets[np.argsort(sequences.timestamps[targets], kind="stable")]
    first, second = split_ids(len(ordered))
    return _by_time(sequences, ordered[:first], ordered[first:second], ordered[second:])


def by_time(sequences: Sequences, ratios: list[float]) -> Split:
    """RecBole's ``TS`` split: targets after a point in time are tested, the rest is split inside each user."""
    ratios = [ratio / sum(ratios) for ratio in ratios]
    targets = targets_of(sequences.lengths, sequences.offsets)
    boundary = np.percentile(sequences.timestamps[targets], 100 * (1 - ratios[-1]))
    before = targets[sequences.timestamps[targets] <= boundary]
    users = sequences.of(before)
    counts = np.bincount(users, minlength=len(sequences.offsets) - 1)
    trained = (counts * (ratios[0] / (1 - ratios[2]))).astype(np.int64)
    rank = before - sequences.offsets[users] - 1
    train = rank < trained[users]
    test = targets[sequences.timestamps[targets] > boundary]
    return _by_time(sequences, before[train], before[~train], test)


def windows(start: np.ndarray, lengths: np.ndarray, size: int, chunk: bool, overlap: int) -> np.ndarray:
    """Cuts sequences into windows counted from their end.

    Args:
        start: (U,) first flat position of each sequence.
        lengths: (U,) its length; one item alone gives no window.
        size: most items of a window, S + 1.
        chunk: False keeps the last window only.
        overlap: items that neighbouring windows share. 1 makes every item but the first a target exactly once;
            0 is the official HLLM code's, which also drops the oldest remainder of a sequence with more than
            one window.

    Returns:
        (W, 2) begin and end positions, users in order, oldest window first.
    """
    stride = size - overlap
    if not chunk:
        count = np.ones_like(lengths)
    elif overlap:
        count = np.maximum(-(-(lengths - overlap) // stride), 1)
    else:
        count = np.maximum(lengths // size, 1)
    count = np.where(lengths >= 2, count, 0)
    owner = np.repeat(np.arange(len(lengths)), count)
    from_end = np.repeat(np.cumsum(count), count) - 1 - np.arange(count.sum())
    end = (start + lengths)[owner] - from_end * stride
    begin = np.maximum(end - size, start[owner])
    return np.stack([begin, end], axis=1)


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
    train, valid, test = (last[has_history & (phase == number)] for number in range(3))
    return Split(train, valid, test, np.where(whole, sequences.lengths, 0))


def _begins_another(sequences: Sequences, chosen: np.ndarray) -> np.ndarray:
    """(U,) whether a chosen sequence is the beginning of the user's next longer chosen one."""
    result = np.zeros(len(chosen), dtype=bool)
    numbers = np.flatnonzero(chosen)
    numbers = numbers[np.lexsort((sequences.lengths[numbers], sequences.users[numbers]))]
    for this, longer in zip(numbers[:-1], numbers[1:], strict=True):
        if sequences.users[this] == sequences.users[longer]:
            begin, length = sequences.offsets[longer], sequences.lengths[this]
            own = sequences.items[sequences.offsets[this] : sequences.offsets[this + 1]]
            result[this] = np.array_equal(own, sequences.items[begin : begin + length])
    return result


def by_file(sequences: Sequences, phase: np.ndarray) -> Split:
    """Split by the file an interaction came from (``benchmark_filename``).

    Args:
        phase: (T,) 0 training, 1 validation, 2 test; no phase comes before an earlier one inside a sequence.
    """
    targets = targets_of(sequences.lengths, sequences.offsets)
    train_lengths = np.bincount(sequences.of(np.flatnonzero(phase == 0)), minlength=len(sequences.offsets) - 1)
    train, valid, test = (targets[phase[targets] == number] for number in range(3))
    return Split(train, valid, test, train_lengths)


def _grouped(sequences: Sequences, train_rows: np.ndarray, valid: np.ndarray, test: np.ndarray) -> Split:
    """A split inside each user: the first item is always known, so it is part of the training data."""
    train_lengths = np.where(sequences.lengths > 0, train_rows + 1, 0)
    targets = targets_of(sequences.lengths, sequences.offsets)
    users = sequences.of(targets)
    train = targets[targets - sequences.offsets[users] < train_lengths[users]]
    return Split(train, valid, test, train_lengths)


def _by_time(sequences: Sequences, train: np.ndarray, valid: np.ndarray, test: np.ndarray) -> Split:
    """A split by time over all users: one whose first target comes later brings no training data."""
    users = sequences.of(train)
    rows = np.bincount(users, minlength=len(sequences.offsets) - 1)
    return Split(np.sort(train), np.sort(valid), np.sort(test), np.where(rows > 0, rows + 1, 0))
