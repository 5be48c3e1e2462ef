"""Counts: how often each id occurs, with memory for the ids alone."""

import pyarrow as pa
import pyarrow.compute as pc

# Ids that wait to be counted together, at the least.
_WAITING = 1 << 22


class Counts:
    """Ids and how often each was added."""

    def __init__(self) -> None:
        self._known = pa.table({"id": pa.array([], pa.large_string()), "n": pa.array([], pa.int64())})
        self._new: list[pa.Table] = []
        self._waiting = 0

    def add(self, ids: pa.Array) -> None:
        """Counts ids (rows,)."""
        counted = pc.value_counts(ids)
        columns = [counted.field("values").cast(pa.large_string()), counted.field("counts")]
        self._new.append(pa.table(columns, names=["id", "n"]))
        self._waiting += len(counted)
        if self._waiting > max(_WAITING, len(self._known)):
            self._merge()

    def __len__(self) -> int:
        """How many different ids there are."""
        self._merge()
        return len(self._known)

    def ids(self, least: int = 1) -> pa.Array:
        """The ids that were added at least so often."""
        self._merge()
        known = self._known.filter(pc.greater_equal(self._known["n"], least))["id"]
        return known.combine_chunks().cast(pa.large_string())

    def rows_of(self, ids: pa.Array) -> int:
        """How often these ids were added, all together."""
        self._merge()
        of_them = self._known.filter(pc.is_in(self._known["id"], ids.cast(pa.large_string())))
        return pc.sum(of_them["n"]).as_py() or 0

    def _merge(self) -> None:
        if self._new:
            grouped = pa.concat_tables([self._known, *self._new]).group_by("id", use_threads=False)
            counted = grouped.aggregate([("n", "sum")])
            self._known = pa.table([counted["id"], counted["n_sum"]], names=["id", "n"])
            self._new, self._waiting = [], 0
