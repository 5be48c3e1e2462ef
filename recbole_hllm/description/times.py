"""Whether timestamps are points in time, in which unit, and how often they do not say what came first."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from recbole_hllm.data.clock import UNITS, within
from recbole_hllm.data.rows.sequences import Sequences
from recbole_hllm.description.numbers import BLOCK, blocks

# Of the plot of interactions over time.
PERIODS = 24
# What timestamps look like beside the units of a clock.
POSITIONS, OTHER = "positions", "other numbers"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def same_as_before(timestamps: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(T,) whether an interaction has the time of the one before it in its sequence."""
    result = np.zeros(len(timestamps), dtype=bool)
    if len(timestamps):
        np.equal(timestamps[1:], timestamps[:-1], out=result[1:])
        result[offsets[:-1][np.diff(offsets) > 0]] = False
    return result


def describe_times(sequences: Sequences, same: np.ndarray) -> dict[str, Any]:
    """What the timestamps look like.

    Args:
        sequences: one for each user.
        same: (T,) from ``same_as_before``.

    Returns:
        kind: what most of them look like: a unit of ``UNITS``, since 1970; ``positions``, which count 0, 1, 2, ... or
        1, 2, 3, ... inside each sequence; or ``other numbers``. kinds: of each that there
        is the share, the least and the most, and of a clock's their dates in UTC. constant: all are the same. periods:
        how many of the kind are in equal parts of the time between, None without a clock. same: share of the
        interactions with the time of the one before.
    """
    found = {kind: _Range() for kind in (*UNITS, POSITIONS, OTHER)}
    for values, is_position in _values(sequences):
        for kind, chosen in _kinds(values, is_position).items():
            found[kind].add(values[chosen])
    total = len(sequences.timestamps)
    kind = max(found, key=lambda name: found[name].count)
    clock = found[kind] if kind in UNITS else None
    kinds = {name: one.described(name, total) for name, one in found.items() if one.count}
    return {
        "kind": kind,
        "kinds": kinds,
        "constant": min(one["least"] for one in kinds.values()) == max(one["most"] for one in kinds.values()),
        "periods": _periods(sequences.timestamps, kind, clock) if clock else None,
        "same": float(same.mean()),
    }


def date_of(time: float, unit: str) -> str:
    """``2001-09-09 01:46:40`` in UTC."""
    return (_EPOCH + timedelta(seconds=time / UNITS[unit])).strftime("%Y-%m-%d %H:%M:%S")


class _Range:
    """Number and range of some values."""

    def __init__(self) -> None:
        self.count, self.least, self.most = 0, float("inf"), float("-inf")

    def add(self, values: np.ndarray) -> None:
        if len(values):
            self.count += len(values)
            self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))

    def described(self, kind: str, total: int) -> dict[str, Any]:
        """Their share of a total, and their range; of a clock's times in dates, too."""
        ends = {"least": self.least, "most": self.most}
        dates = {"first": date_of(self.least, kind), "last": date_of(self.most, kind)} if kind in UNITS else {}
        return {"share": self.count / total, **ends, **dates}


def _values(sequences: Sequences) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """float64 times, and which of them count inside their sequence, block by block."""
    offsets = sequences.offsets
    for first, after in blocks(offsets):
        begin, end = offsets[first], offsets[after]
        values = np.asarray(sequences.timestamps[begin:end], dtype=np.float64)
        lengths, counting = np.diff(offsets[first : after + 1]), np.zeros(len(values), dtype=bool)
        filled = lengths > 0
        starts, lengths = (offsets[first:after] - begin)[filled], lengths[filled]
        begins = np.isin(values[starts], (0, 1))
        if begins.any():
            expected = np.arange(len(values)) + np.repeat(values[starts] - starts, lengths)
            counting = (values == expected) & np.repeat(begins, lengths)
        yield values, counting


def _kinds(values: np.ndarray, is_position: np.ndarray) -> dict[str, np.ndarray]:
    """Which values are of each kind; every one is of one."""
    kinds = {unit: within(values, unit) for unit in UNITS}
    kinds[POSITIONS] = is_position
    kinds[OTHER] = ~np.logical_or.reduce(list(kinds.values()))
    return kinds


def _periods(timestamps: np.ndarray, kind: str, clock: _Range) -> list[dict[str, Any]]:
    number = PERIODS if clock.least < clock.most else 1
    edges = np.linspace(clock.least, clock.most, number + 1)
    counts = np.zeros(number, dtype=np.int64)
    for begin in range(0, len(timestamps), BLOCK):
        values = np.asarray(timestamps[begin : begin + BLOCK], dtype=np.float64)
        counts += np.histogram(values[within(values, kind)], bins=edges)[0]
    return [
        {"from": date_of(edge, kind), "count": int(count)} for edge, count in zip(edges[:-1], counts, strict=True)
    ]
