"""Counts: how often each id occurs, with memory for the different ids alone."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Ids that wait to be counted together, at the least.
_WAITING = 1 << 22


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
