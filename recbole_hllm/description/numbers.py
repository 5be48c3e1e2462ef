"""Numbers of a data set out of flat arrays: lengths, popularity, repeated pairs, k-cores, targets.

Arrays of all interactions are read in blocks of whole sequences, so that nothing else of their size is made but a few
bytes for each.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from recbole_hllm.data.rows.sequences import Sequences

BLOCK = 2**22  # interactions looked at together
QUANTILES = {
    "min": 0.0, "p1": 0.01, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99, "max": 1.0,
}  # fmt: skip
CORES = (2, 3, 5, 10, 20)
TOP_SHARES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5)


def blocks(offsets: np.ndarray, size: int | None = None) -> Iterator[tuple[int, int]]:
    """First sequence, and the one after the last, of blocks of at most ``size`` interactions (``BLOCK``), or of one
    longer sequence."""
    size = size or BLOCK
    first, last = 0, len(offsets) - 1
    while first < last:
        fitting = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
        after = min(max(fitting, first + 1), last)
        yield first, after
        first = after


def counts_of(values: np.ndarray, size: int) -> np.ndarray:
    """(size,) int64, how often each number occurs."""
    counts = np.zeros(size, dtype=np.int64)
    for begin in range(0, len(values), BLOCK):
        counts += np.bincount(values[begin : begin + BLOCK], minlength=size)
    return counts


# ---- how numbers are spread ----


def histogram_edges(largest: int) -> np.ndarray:
    """0, 1, 2, 3, 4, 6, 8, 12, 16, ... beyond ``largest``: each bin reaches up to the next edge."""
    edges = [0, 1, 2, 3]
    while edges[-1] <= largest:
        edges.append(2 * edges[-2])
    return np.array(edges)


def spread(values: np.ndarray) -> dict[str, Any] | None:
    """Mean, quantiles and histogram of whole numbers from 0 on; None where there are none.

    A quantile is the smallest value that at least such a share of the values does not exceed.
    """
    if len(values) == 0:
        return None
    quantiles = np.quantile(values, list(QUANTILES.values()), method="inverted_cdf")
    edges = histogram_edges(int(quantiles[-1]))
    counts = np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges) - 1)
    filled = np.flatnonzero(counts)
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "quantiles": {name: int(value) for name, value in zip(QUANTILES, quantiles, strict=True)},
        "histogram": [
            {"from": int(edges[place]), "to": int(edges[place + 1]) - 1, "count": int(counts[place])}
            for place in range(filled[0], filled[-1] + 1)
        ],
    }


def gini(counts: np.ndarray) -> float:
    """0 where all are equal, near 1 where one has everything."""
    ordered = np.sort(counts)
    ranks = np.arange(1, len(ordered) + 1)
    return float(2 * (ranks * ordered).sum() / (len(ordered) * ordered.sum()) - (len(ordered) + 1) / len(ordered))


def popularity(counts: np.ndarray) -> dict[str, Any]:
    """How unequally interactions are spread over items.

    Args:
        counts: (N,) interactions of each real item.

    Returns:
        their ``spread``, the ``gini`` coefficient, and ``top``: for some shares of the items how many these are, at
        least one, and the share of all interactions that the most popular of them have.
    """
    sums = np.cumsum(np.sort(counts)[::-1])
    numbers = [max(1, round(share * len(counts))) for share in TOP_SHARES]
    top = [
        {"share": share, "items": number, "interactions": float(sums[number - 1] / sums[-1])}
        for share, number in zip(TOP_SHARES, numbers, strict=True)
    ]
    return {"spread": spread(counts), "gini": gini(counts), "top": top}


# ---- pairs, and what is left by filters ----


def repeated(items: np.ndarray, offsets: np.ndarray, n_items: int) -> np.ndarray:
    """(T,) whether an item is in its sequence before.

    Args:
        items: (T,) item ids, one sequence after the other.
        offsets: (U + 1,) where each begins.
        n_items: ids are below it.
    """
    result = np.zeros(len(items), dtype=bool)
    for first, after in blocks(offsets):
        owners = np.repeat(np.arange(after - first), np.diff(offsets[first : after + 1]))
        keys = owners * n_items + items[offsets[first] : offsets[after]]
        order = np.argsort(keys, kind="stable")
        again = order[1:][np.diff(keys[order]) == 0]
        result[offsets[first] + again] = True
    return result


def cores(sequences: Sequences, n_items: int, sizes: tuple[int, ...] = CORES) -> list[dict[str, int]]:
    """What is left where users and items with fewer than k interactions are left out, again and again until none is.

    Args:
        sequences: one for each user.
        n_items: item ids are below it.
        sizes: values of k, rising.

    Returns:
        k, users, items and interactions of each.
    """
    n_users = len(sequences.offsets) - 1
    users = np.repeat(np.arange(n_users, dtype=np.int32), sequences.lengths)
    items = np.array(sequences.items, dtype=np.int32)  # a copy, which loses what is left out
    counts = np.array(sequences.lengths), counts_of(items, n_items)
    found = []
    for size in sizes:
        while any((of_some < size)[of_some > 0].any() for of_some in counts):
            users, items = _leave_out(users, items, counts, size)
        left = (*(int(np.count_nonzero(of_some)) for of_some in counts), len(items))
        found.append(dict(zip(("k", "users", "items", "interactions"), (size, *left), strict=True)))
    return found


def _leave_out(
    users: np.ndarray, items: np.ndarray, counts: tuple[np.ndarray, np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The interactions of users and items that have ``size`` of them, at the beginning of the same arrays; the others
    are taken off the counts."""
    rare_user, rare_item = (of_some < size for of_some in counts)
    left, gone = 0, []
    for begin in range(0, len(items), BLOCK):
        of_users, of_items = users[begin : begin + BLOCK], items[begin : begin + BLOCK]
        out = rare_user[of_users] | rare_item[of_items]
        gone.append((of_users[out], of_items[out]))
        kept = of_users[~out], of_items[~out]
        end = left + len(kept[0])
        users[left:end], items[left:end] = kept
        left = end
    for of_some, values in zip(counts, zip(*gone, strict=True), strict=True):
        of_some -= counts_of(np.concatenate(values), len(of_some))
    return users[:left], items[:left]


# ---- targets ----


def targets(
    sequences: Sequences,
    held_out: np.ndarray,
    training_counts: np.ndarray,
    train_lengths: np.ndarray,
    again: np.ndarray,
    same_time: np.ndarray | None,
) -> dict[str, Any]:
    """What the targets of a phase are like.

    Args:
        held_out: (P,) flat positions of the targets.
        training_counts: (n_items,) training interactions of each item.
        train_lengths: (U,) those of each sequence.
        again: (T,) from ``repeated``.
        same_time: (T,) whether the item before has the same time; None where times do not say it.

    Returns:
        targets and their users; of the targets the number that is cold (an item without training interactions), of a
        new user (without any), leaked (an item that is in the history before it), tied (at the time of the item
        before); and the number of different cold items.
    """
    owners, items = sequences.of(held_out), sequences.items[held_out]
    cold = training_counts[items] == 0
    return {
        "targets": len(held_out),
        "users": len(np.unique(sequences.users[owners])),
        "cold": int(cold.sum()),
        "cold_items": len(np.unique(items[cold])),
        "new_users": int((train_lengths[owners] == 0).sum()),
        "leaked": int(again[held_out].sum()),
        "tied": None if same_time is None else int(same_time[held_out].sum()),
    }
