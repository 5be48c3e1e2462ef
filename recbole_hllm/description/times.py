"""Whether timestamps are points in time, in which unit, and how often they do not say what came first."""

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from recbole_hllm.data.clock import UNITS, within
from recbole_hllm.data.rows.sequences import Sequences
from recbole_hllm.description.numbers import blocks

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
        kind: what most of them look like: ``seconds``, ``milliseconds`` or ``microseconds`` since 1970; ``positions``,
        which count 0, 1, 2, ... or 1, 2, 3, ... inside each sequence; or ``other numbers``. kinds: the share of each.
        least and most: of all. first and last: dates of those of the kind, None without a clock. periods: their
        number in equal parts of the time between. same: share of the interactions with the time of the one before.
    """
    found = {kind: _Range() for kind in (*UNITS, POSITIONS, OTHER)}
    for values, is_position in _values(sequences):
        for kind, chosen in _kinds(values, is_position).items():
            found[kind].add(values[chosen])
    total = len(sequences.timestamps)
    kind = max(found, key=lambda name: found[name].count)
    clock = found[kind] if kind in UNITS else None
    seen = [one for one in found.values() if one.count]
    return {
        "kind": kind,
        "kinds": {name: one.count / total for name, one in found.items() if one.count},
        "least": min(one.least for one in seen),
        "most": max(one.most for one in seen),
        "first": clock and date_of(clock.least, kind),
        "last": clock and date_of(clock.most, kind),
        "periods": _periods(sequences, kind, clock) if clock else None,
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


def _values(sequences: Sequences) -> Any:
    """float64 times, and which of them count inside their sequence, block by block."""
    offsets = sequences.offsets
    for first, after in blocks(offsets):
        begin, end = offsets[first], offsets[after]
        values = np.asarray(sequences.timestamps[begin:end], dtype=np.float64)
        lengths = np.diff(offsets[first : after + 1])
        starts = np.repeat(offsets[first:after] - begin, lengths)
        places = np.arange(end - begin) - starts
        yield values, (values - places == values[starts]) & np.isin(values[starts], (0, 1))


def _kinds(values: np.ndarray, is_position: np.ndarray) -> dict[str, np.ndarray]:
    """Which values are of each kind; every one is of one."""
    kinds = {unit: within(values, unit) for unit in UNITS}
    kinds[POSITIONS] = is_position
    kinds[OTHER] = ~np.logical_or.reduce(list(kinds.values()))
    return kinds


def _periods(sequences: Sequences, kind: str, clock: _Range) -> list[dict[str, Any]]:
    edges = np.linspace(clock.least, clock.most, PERIODS + 1)
    counts = np.zeros(PERIODS, dtype=np.int64)
    if clock.least == clock.most:
        edges, counts = edges[[0, -1]], counts[:1]
    for values, _ in _values(sequences):
        of_kind = values[within(values, kind)]
        places = np.searchsorted(edges, of_kind, side="right") - 1
        counts += np.bincount(np.minimum(places, len(counts) - 1), minlength=len(counts))
    return [
        {"from": date_of(edge, kind), "count": int(count)} for edge, count in zip(edges[:-1], counts, strict=True)
    ]
