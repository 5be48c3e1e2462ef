"""Interactions sorted by user and time, without sorting all of them at once."""

import numpy as np
from scipy.sparse import coo_matrix

_ROWS = 1 << 18


def by_group_and_time(groups: np.ndarray, n_groups: int, times: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """The order by group, then time; rows of one group and time stay in the order they have.

    Rows are counted into their groups, and only groups whose times are not yet in order are sorted, some at a time.

    Args:
        groups: (T,) numbers of groups, below ``n_groups``.
        times: (T,) numbers without NaN.

    Returns:
        (T,) the row numbers in order, None where they are in order already; and the times in order.
    """
    order = _grouped(groups, n_groups)
    times = times if order is None else times[order]
    ends = np.cumsum(np.bincount(groups, minlength=n_groups))
    begin = 0
    while begin < len(times):
        group = np.searchsorted(ends, begin, side="right")
        last = max(np.searchsorted(ends, begin + _ROWS, side="right"), group + 1)
        end = int(ends[last - 1])
        rows = _late_rows(times[begin:end], ends[group:last] - begin)
        if len(rows):
            if order is None:
                order = np.arange(len(times), dtype=np.int32 if len(times) < 2**31 else np.int64)
                times = times.copy()  # what was given stays as it is
            moved = rows[_sorted(np.searchsorted(ends[group:last] - begin, rows, side="right"), times[begin:end][rows])]
            order[begin:end][rows] = order[begin:end][moved]
            times[begin:end][rows] = times[begin:end][moved]
        begin = end
    return order, times


def _grouped(groups: np.ndarray, n_groups: int) -> np.ndarray | None:
    """Row numbers, group after group: a row of a sparse matrix keeps its entries in the order of their columns."""
    if (groups[1:] >= groups[:-1]).all():
        return None
    rows = len(groups)
    marks, columns = np.broadcast_to(np.int8(1), rows), np.arange(rows, dtype=np.int32 if rows < 2**31 else np.int64)
    return coo_matrix((marks, (groups, columns)), shape=(n_groups, rows)).tocsr().indices


def _late_rows(times: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Rows of the groups in which a row is earlier than the one before."""
    back = times[1:] < times[:-1]
    inner = ends[ends < len(times)]
    back[inner[inner > 0] - 1] = False  # another group begins
    late = np.unique(np.searchsorted(ends, np.flatnonzero(back), side="right"))
    begins = np.concatenate([[0], ends[:-1]])
    if len(late) == len(ends):
        return np.arange(len(times))
    sizes = ends[late] - begins[late]
    return np.repeat(begins[late] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())


def _sorted(groups: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The stable order of rows by group and time."""
    if times.dtype.kind == "i":
        first = int(times.min())
        span = int(times.max()) - first + 1
        if span * (int(groups[-1]) + 1) < 2**62:
            return np.argsort(groups * np.int64(span) + (times.astype(np.int64) - first), kind="stable")
    return np.lexsort((times, groups))
