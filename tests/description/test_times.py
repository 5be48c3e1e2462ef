"""What timestamps look like."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.rows.sequences import Sequences
from recbole_hllm.description import numbers, times
from recbole_hllm.description.times import date_of, describe_times, same_as_before


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "BLOCK", 4)
        patch.setattr(times, "BLOCK", 4)
        yield


def described(histories, dtype=np.float64):
    """Of the times of each user."""
    values = np.array([time for history in histories for time in history], dtype=dtype)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    sequences = Sequences(np.ones(len(values), dtype=np.int32), values, offsets, np.arange(len(histories)))
    return describe_times(sequences, same_as_before(values, offsets))


def shares(found):
    return {kind: one["share"] for kind, one in found["kinds"].items()}


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=8))
def test_the_same_time_as_before(histories):
    values = np.array([time for history in histories for time in history])
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    expected = [
        place > 0 and history[place] == history[place - 1] for history in histories for place in range(len(history))
    ]
    assert same_as_before(values, offsets).tolist() == expected


@pytest.mark.parametrize(
    "unit, factor", [("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)]
)
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_units_of_a_clock(unit, factor, dtype):
    found = described([[], [1_000_000_000 * factor, 1_000_000_060 * factor], [1_500_000_000 * factor]], dtype)
    assert found["kind"] == unit and shares(found) == {unit: 1}
    assert found["kinds"][unit]["first"] == "2001-09-09 01:46:40"
    assert found["kinds"][unit]["last"] == "2017-07-14 02:40:00"
    assert found["same"] == 0 and not found["constant"]
    assert [row["count"] for row in found["periods"]] == [2, *[0] * (times.PERIODS - 2), 1]
    assert found["periods"][0]["from"] == "2001-09-09 01:46:40"


def test_seconds_as_int32():
    assert described([[1_000_000_000], [1_000_000_000]], np.int32)["periods"] == [
        {"from": "2001-09-09 01:46:40", "count": 2}
    ]


@pytest.mark.parametrize("first", [0, 1])
def test_positions(first):
    found = described([[], [first, first + 1, first + 2, first + 3, first + 4, first + 5], [first], []])
    assert found["kind"] == "positions" and shares(found) == {"positions": 1}
    assert found["periods"] is None and "first" not in found["kinds"]["positions"]


def test_counters_are_no_positions():
    found = described([[0, 1, 2], [3, 4, 5, 6]])
    assert shares(found) == {"positions": 3 / 7, "other numbers": 4 / 7} and found["kind"] == "other numbers"
    assert described([[0.5, 1.5]])["kind"] == "other numbers"


def test_mixed_units_are_told_apart():
    found = described([[1_000_000_000, 1_000_000_001, 1_000_000_002_000], [0, 1]])
    assert shares(found) == {"seconds": 0.4, "milliseconds": 0.2, "positions": 0.4}
    assert found["kinds"]["milliseconds"]["least"] == 1_000_000_002_000


def test_one_time_for_all():
    found = described([[0, 0, 0], [0]])
    assert found["constant"]
    assert described([[1_000_000_000], [1_000_000_000]])["constant"]
    assert not described([[0], [0, 1]])["constant"]


def test_dates():
    assert date_of(0, "seconds") == "1970-01-01 00:00:00"
    assert date_of(1_000_000_000_500, "milliseconds") == "2001-09-09 01:46:40"
