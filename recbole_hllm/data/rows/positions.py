"""Sets of flat positions as runs, so that a position needs no memory of its own."""

from collections.abc import Iterator
from typing import Any

import numpy as np

# Positions looked at together where all of them are needed once.
BLOCK = 1 << 20


def narrow(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers in 32 bits where they fit, for arrays with an entry for every user or interaction."""
    if numbers.dtype == np.int32:  # not looked at, since they may lie on the disk
        return numbers
    fits = len(numbers) == 0 or (numbers.max() < 2**31 and numbers.min() >= -(2**31))
    return numbers.astype(np.int32) if fits else numbers


def ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """begin[0]..end[0]-1, begin[1]..end[1]-1, ... in one array."""
    lengths = end - begin
    total = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(begin - total[:-1], lengths) + np.arange(total[-1])


def blocks_of(totals: np.ndarray, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Neighbouring sequences with about ``size`` items together: begin and end numbers of each such block.

    Args:
        totals: (U + 1,) how many items are before each sequence, and of all.
    """
    begin, count = 0, len(totals) - 1
    while begin < count:
        last = np.searchsorted(totals, totals.dtype.type(totals[begin] + size), side="right") - 1
        end = min(max(int(last), begin + 1), count)
        yield begin, end
        begin = end


class Owners:
    """(T,) number of the sequence that each flat position belongs to: as an array that is looked up, but computed.

    Args:
        offsets: (U + 1,) sequence u has the positions from ``offsets[u]`` to ``offsets[u + 1]``.
    """

    def __init__(self, offsets: np.ndarray) -> None:
        self.offsets, self.shape, self.dtype = offsets, (int(offsets[-1]),), np.dtype(np.int64)

    def take(self, positions: np.ndarray, axis: int = 0) -> np.ndarray:
        """The numbers at some positions."""
        return np.searchsorted(self.offsets, positions, side="right") - 1


class Positions:
    """Flat positions in rising order: of each sequence a run of neighbours, which may be empty.

    It is indexed by numbers as an array of them would be, and becomes one where NumPy asks for it.

    Args:
        begin: (U,) first position of each run.
        counts: (U,) how many it has.

    Attributes:
        before: (U + 1,) how many positions the runs before each one have, and all.
    """

    def __init__(self, begin: np.ndarray, counts: np.ndarray) -> None:
        before = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=before[1:])
        self._shift = narrow(begin - before[:-1])  # position of number n of this run: n + shift
        self.before = narrow(before)

    def __len__(self) -> int:
        return int(self.before[-1])

    @property
    def is_one_run(self) -> bool:
        """Whether these are neighbours, of no sequence: all there are, say."""
        return len(self.before) == 2

    @property
    def begin(self) -> np.ndarray:
        """(U,) first position of each run."""
        return self._shift + self.before[:-1].astype(np.int64)

    @property
    def counts(self) -> np.ndarray:
        """(U,) how many positions each run has."""
        return np.diff(self.before)

    def counts_of(self, owners: np.ndarray) -> np.ndarray:
        """(B,) how many positions the runs of these sequences have."""
        return self.before[owners + 1] - self.before[owners]

    def of_runs(self, owners: np.ndarray) -> np.ndarray:
        """All positions of the runs of these sequences."""
        begin = self._shift[owners] + self.before[owners].astype(np.int64)
        return ranges(begin, begin + self.counts_of(owners))

    def most(self, counts: Any) -> "Positions":
        """The first positions of each run, at most so many."""
        return Positions(self.begin, np.minimum(self.counts, counts))

    def latest(self) -> "Positions":
        """The last position of each run."""
        some = np.minimum(self.counts, 1)
        return Positions(self.begin + self.counts - some, some)

    def at(self, index: Any) -> tuple[np.ndarray, np.ndarray]:
        """The sequence and the flat position of each of these numbers, (B,) int64 both."""
        index = np.asarray(index)
        owners = np.searchsorted(self.before, index.astype(self.before.dtype, copy=False), side="right") - 1
        return owners, self._shift[owners] + index.astype(np.int64, copy=False)

    def run(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The sequences and positions of the numbers from ``begin`` to ``end - 1``."""
        first, last = np.searchsorted(self.before, np.array([begin, end - 1], self.before.dtype), side="right")
        counts = np.diff(np.clip(self.before[first - 1 : last + 1], begin, end))
        owners = np.repeat(np.arange(first - 1, last), counts)
        return owners, np.arange(begin, end) + self._shift[owners]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The sequences and positions of all, some at a time."""
        for begin in range(0, len(self), BLOCK):
            yield self.run(begin, min(begin + BLOCK, len(self)))

    def pick(self, values: np.ndarray) -> np.ndarray:
        """(P, ...) entries of flat values at all positions, in the values' type."""
        picked = np.empty((len(self), *values.shape[1:]), values.dtype)
        for number, (_, positions) in enumerate(self.blocks()):
            picked[number * BLOCK : number * BLOCK + len(positions)] = values.take(positions, axis=0)
        return picked

    def count(self, numbers: np.ndarray, size: int) -> np.ndarray:
        """(size,) how often each number occurs in flat ``numbers`` at these positions."""
        counts = np.zeros(size, dtype=np.int64)
        for _, positions in self.blocks():
            counts += np.bincount(numbers.take(positions), minlength=size)
        return counts

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            return self.run(begin, max(begin, end))[1] if step == 1 else self.at(np.arange(begin, end, step))[1]
        return self.at(index)[1]

    def __iter__(self) -> Iterator[int]:
        for _, positions in self.blocks():
            yield from positions.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        positions = self.run(0, len(self))[1] if len(self) else np.empty(0, dtype=np.int64)
        return positions.astype(dtype or np.int64, copy=False)
