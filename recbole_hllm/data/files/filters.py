"""RecBole's filters of interactions, on flat arrays: what each leaves out is what RecBole leaves out."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.data.files.table import Table
from recbole_hllm.errors import ConfigError

_INTERVAL = re.compile(r"([\[(])([^,]*),([^,]*)([\])])")
_BLOCK = 1 << 22

Interval = tuple[str, float, float, str]


def parse_intervals(text: Any) -> list[Interval] | None:
    """Such as ``[5,inf)`` or ``[1,2];(4,5]``: bracket, least, most and bracket of each; None for no text.

    Raises:
        ConfigError: it is not a list of intervals.
    """
    intervals = []
    for interval in [] if text is None else str(text).split(";"):
        match = _INTERVAL.fullmatch(interval.strip())
        try:
            ends = (float(match[2]), float(match[3])) if match else (1.0, 0.0)
        except ValueError:
            ends = (1.0, 0.0)
        if not match or not ends[0] <= ends[1]:
            raise ConfigError(
                f"'{interval}' is not an interval such as [5,inf) or (0,1], needed in user_inter_num_interval, "
                "item_inter_num_interval and val_interval"
            )
        intervals.append((match[1], *ends, match[4]))
    return intervals if text is not None else None


def within(values: np.ndarray, intervals: Sequence[Interval]) -> np.ndarray:
    """Which numbers lie in one of the intervals; NaN lies in none."""
    inside = np.zeros(len(values), dtype=bool)
    for left, least, most, right in intervals:
        above = values >= least if left == "[" else values > least
        inside |= above & (values <= most if right == "]" else values < most)
    return inside


def keep_values(table: Table, field: str, allowed: Any) -> None:
    """``val_interval`` of a column: intervals of a column of numbers, a list of texts of one of tokens."""
    if field not in table.tokens:
        table.take(within(table.columns[field], parse_intervals(allowed) or []))
        return
    keep_tokens(table, field, pa.array(list(allowed), pa.large_string()))


def keep_tokens(table: Table, field: str, allowed: pa.Array) -> None:
    """Keeps the rows with one of some texts in a column."""
    known = pc.is_in(table.tokens[field].texts, value_set=allowed.cast(pa.large_string())).to_numpy(
        zero_copy_only=False
    )
    known = known.copy()
    known[0] = False  # a missing one
    table.take(known[table.columns[field]])


def keep_once(table: Table, user: str, item: str, time: str, keep: str) -> None:
    """``rm_dup_inter``: the ``first`` or ``last`` interaction of each pair; rows come into the order of their times, as
    in RecBole."""
    table.take(np.argsort(table.columns[time], kind="stable"))
    pairs = table.columns[user].astype(np.int64) * len(table.tokens[item]) + table.columns[item]
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    other = pairs[1:] != pairs[:-1]
    mask = np.zeros(len(pairs), dtype=bool)
    mask[order[np.append(True, other) if keep == "first" else np.append(other, True)]] = True
    table.take(mask)


def keep_counts(
    table: Table, user: str, item: str, of_users: Sequence[Interval] | None, of_items: Sequence[Interval] | None
) -> None:
    """``user_inter_num_interval`` and ``item_inter_num_interval``: again and again until all users and items that are
    left have as many interactions as they may."""
    sides = [(table.columns[name], len(table.tokens[name]), intervals) for name, intervals in
             ((user, of_users), (item, of_items)) if intervals is not None and not _every_count(intervals)]  # fmt: skip
    kept = np.ones(len(table), dtype=bool)
    numbers = [ids for ids, _, _ in sides]
    places: np.ndarray | None = None  # rows that are left; None for all
    counts = [np.bincount(ids, minlength=size) for ids, size, _ in sides]
    while sides:
        banned = [(there > 0) & ~within(there, side[2]) for there, side in zip(counts, sides, strict=True)]
        if not any(one.any() for one in banned):
            break
        gone = _in_blocks(len(numbers[0]), lambda rows, now=banned: np.logical_or.reduce(  # type: ignore[misc]
            [one[ids[rows]] for one, ids in zip(now, numbers, strict=True)]
        ))  # fmt: skip
        left = np.flatnonzero(~gone) if places is None else places[~gone]
        kept[np.flatnonzero(gone) if places is None else places[gone]] = False
        for side, (ids, (_, size, _)) in enumerate(zip(list(numbers), sides, strict=True)):
            counts[side] -= np.bincount(ids[gone], minlength=size)
            numbers[side] = ids[~gone]
        places = left
    if not kept.all():
        table.take(kept)


def _every_count(intervals: Sequence[Interval]) -> bool:
    return any(least <= (1 if left == "[" else 0) and most == np.inf for left, least, most, _ in intervals)


def _in_blocks(rows: int, of: Callable[[slice], np.ndarray]) -> np.ndarray:
    """(rows,) bool, block by block: what is needed on the way stays small."""
    result = np.empty(rows, dtype=bool)
    for begin in range(0, rows, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        result[block] = of(block)
    return result
