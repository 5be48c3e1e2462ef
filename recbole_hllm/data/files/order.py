"""Interactions sorted by user and time: parted by ranges of users first, then sorted part by part in the processor's
cache."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_matrix

# Rows of a part, about: their keys fit into a processor's cache.
_ROWS = 1 << 18


def by_group_and_time(groups: np.ndarray, n_groups: int, times: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """The order by group, then time; rows of one group and time stay in the order they have.

    Args:
        groups: (T,) numbers of groups, below ``n_groups``.
        times: (T,) numbers without NaN.

    Returns:
        (T,) the row numbers in order, None where they are in order already; and the times in order.
    """
    if _sorted_already(groups, times):
        return None, times
    shift = 0
    while n_groups >> shift > max(len(groups) // _ROWS, 1):
        shift += 1
    order, ends = _grouped(groups >> shift, (n_groups >> shift) + 1)
    in_order_times = np.empty_like(times)

    def sort_part(part: int) -> None:
        place = slice(ends[part], ends[part + 1])
        rows = order[place]
        part_times = times[rows]
        sorting = _sorting(groups[rows] & ((1 << shift) - 1), shift, part_times)
        order[place], in_order_times[place] = rows[sorting], part_times[sorting]

    _in_threads(sort_part, range(len(ends) - 1))
    return order, in_order_times


def in_order(column: np.ndarray, order: np.ndarray) -> np.ndarray:
    """``column[order]``, by as many threads as there are processors: what it waits for is memory."""
    result = np.empty(len(order), column.dtype)

    def take(begin: int) -> None:
        result[begin : begin + _ROWS] = column[order[begin : begin + _ROWS]]

    _in_threads(take, range(0, len(order), _ROWS))
    return result


def _in_threads(work: Any, parts: range) -> None:
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        deque(pool.map(work, parts), maxlen=0)


def _sorted_already(groups: np.ndarray, times: np.ndarray) -> bool:
    for begin in range(0, len(groups), _ROWS):
        group, time = groups[begin : begin + _ROWS + 1], times[begin : begin + _ROWS + 1]
        if ((group[1:] < group[:-1]) | ((group[1:] == group[:-1]) & (time[1:] < time[:-1]))).any():
            return False
    return True


def _grouped(groups: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers, group after group, and (n_groups + 1,) where each begins: a row of a sparse matrix keeps its entries
    in the order of their columns."""
    rows = len(groups)
    marks, columns = np.broadcast_to(np.int8(1), rows), np.arange(rows, dtype=np.int32 if rows < 2**31 else np.int64)
    matrix = coo_matrix((marks, (groups, columns)), shape=(n_groups, rows))
    matrix.has_canonical_format = True  # no entry is there twice
    matrix = matrix.tocsr()
    return matrix.indices, matrix.indptr


def _sorting(groups: np.ndarray, bits: int, times: np.ndarray) -> np.ndarray:
    """The stable order of some rows by group and time.

    Args:
        groups: (n,) numbers of ``bits`` bits.
        times: (n,).
    """
    if len(times) and times.dtype.kind == "i":
        first, row_bits = int(times.min()), len(times).bit_length()
        time_bits = (int(times.max()) - first).bit_length()
        if bits + time_bits + row_bits < 64:  # then numbers sort faster than their order is found
            keys = (groups.astype(np.int64) << time_bits) | (times.astype(np.int64) - first)
            keys = (keys << row_bits) | np.arange(len(times))
            keys.sort()
            return keys & ((1 << row_bits) - 1)
    by_time = np.argsort(times, kind="stable")
    return by_time[_grouped(groups[by_time], 1 << bits)[0]]
