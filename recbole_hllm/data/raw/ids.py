"""Which ids there are, and how often each occurs, with memory for the different ids alone."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Ids that wait to be counted together, at the least.
_WAITING = 1 << 22
_ODD = np.uint64(0x9E3779B97F4A7C15)
# Number of bytes -> those of a word, the first byte is its lowest.
_BYTES = np.array([(1 << 8 * number) - 1 for number in range(9)], np.uint64)


class Counts:
    """Ids and how often each was added."""

    def __init__(self) -> None:
        self._ids = pa.array([], pa.large_string())
        self._times = np.zeros(0, np.int64)
        self._new: list[pa.Array] = []
        self._waiting = 0

    def add(self, ids: pa.Array) -> None:
        """Counts ids (rows,)."""
        self._new.append(ids.cast(pa.large_string()))
        self._waiting += len(ids)
        # Each time, the known ids are counted again: so seldom that it costs no more than the new ones.
        if self._waiting > max(_WAITING, len(self._ids)):
            self._merge()

    def __len__(self) -> int:
        """How many different ids there are."""
        self._merge()
        return len(self._ids)

    def ids(self, least: int = 1) -> pa.Array:
        """The ids that were added at least so often."""
        self._merge()
        return self._ids.filter(pa.array(self._times >= least))

    def rows_of(self, ids: pa.Array) -> int:
        """How often these ids were added, all together."""
        self._merge()
        return int(self._times[pc.is_in(self._ids, ids).to_numpy(zero_copy_only=False)].sum())

    def _merge(self) -> None:
        if self._new:
            coded = pa.concat_arrays([self._ids, *self._new]).dictionary_encode()
            weights = np.ones(len(coded), np.int64)
            weights[: len(self._times)] = self._times
            times = np.bincount(coded.indices.to_numpy(), weights, len(coded.dictionary))
            self._ids, self._times = coded.dictionary, times.astype(np.int64)
            self._new, self._waiting = [], 0


class Distinct:
    """How many different ids there are, by 64-bit hashes: a fraction of the time and memory of ``Counts``.

    Ids of up to 8 bytes have hashes of their own. Of 10 million longer ones, two share one with a probability of 3 in
    a million, and count as one.
    """

    def __init__(self) -> None:
        self._known = np.zeros(0, np.uint64)
        self._new: list[np.ndarray] = []

    def add(self, ids: pa.Array) -> None:
        """Notes ids (rows,), none of them empty."""
        self._new.append(hashes_of(ids))
        if sum(map(len, self._new)) > max(_WAITING, len(self._known)):
            len(self)

    def __len__(self) -> int:
        """How many different ids were added."""
        if self._new:
            hashes = np.concatenate([self._known, *self._new])
            hashes.sort()
            self._known, self._new = hashes[np.append(True, hashes[1:] != hashes[:-1])], []
        return len(self._known)


def hashes_of(ids: pa.Array) -> np.ndarray:
    """(rows,) uint64 hashes of the bytes of texts; those of up to 8 bytes, without nulls, have different ones."""
    ends = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1].astype(np.int64)
    text = np.zeros(ends[-1] - ends[0] + 8, np.uint8)
    text[:-8] = np.frombuffer(ids.buffers()[2], np.uint8)[ends[0] : ends[-1]]
    words = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))  # from every byte on, the 8 that follow
    begins, lengths = ends[:-1] - ends[0], np.diff(ends)
    hashes = np.zeros(len(ids), np.uint64)
    for place in range(0, int(lengths.max(initial=0)), 8):
        left = lengths - place
        some = slice(None) if left.min() > 0 else np.flatnonzero(left > 0)
        word = words[begins[some] + place] & _BYTES[np.minimum(left[some], 8)]
        mixed = (hashes[some] ^ word) * _ODD
        hashes[some] = mixed ^ (mixed >> np.uint64(32))
    return hashes
