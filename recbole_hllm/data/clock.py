"""Whether the timestamps of a data set are points in time, and in which unit."""

import numpy as np

from recbole_hllm.errors import DataError

# Seconds since 1970 of the beginning of 1973 and of the year 2100: counters lie before, milliseconds after.
_EARLIEST, _LATEST = 94_694_400, 4_102_444_800
# Units of a clock, and how many of them a second has. What can be a time in one of them is none in another.
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def within(timestamps: np.ndarray, unit: str) -> np.ndarray:
    """(T,) which numbers can be times in this unit since 1970: those from 1973 to 2100."""
    return (timestamps >= _EARLIEST * UNITS[unit]) & (timestamps <= _LATEST * UNITS[unit])


def units_of(times: np.ndarray) -> dict[str, np.ndarray]:
    """Unit -> which times look as if they were written in it, of the units that occur; empty where only one does.

    Args:
        times: (T,) finite numbers.
    """
    if len(times) == 0 or times.max() < _EARLIEST * 1000:
        return {}
    found = {unit: within(times, unit) for unit in UNITS}
    there = {unit: rows for unit, rows in found.items() if rows.any()}
    return there if len(there) > 1 else {}


def check_clock_times(
    timestamps: np.ndarray, name: str, key: str, lacking: str, instead: str
) -> None:
    """Raises DataError for positions in place of times, and for times in another unit than seconds.

    Args:
        timestamps: (T,) of all interactions.
        name: of the data set.
        key: that needs them.
        lacking: what counters have not that the key needs, such as "hour or month".
        instead: what to do without.
    """
    typical = float(np.median(timestamps))
    if typical < _EARLIEST:
        raise DataError(
            f"{key}: the timestamps of {name}.inter (half of them below {typical:g}) are not seconds since 1970 but "
            f"counters, such as positions in a history: they have no {lacking}; {instead}"
        )
    if typical > _LATEST:
        raise DataError(
            f"{key}: the timestamps of {name}.inter (half of them above {typical:g}) are not seconds since 1970, "
            f"probably milliseconds; divide them, or {instead}"
        )
