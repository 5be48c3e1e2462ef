"""The order by user and time equals a stable sort of everything, however small the parts that are sorted at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.files import order as order_module
from recbole_hllm.data.files.order import by_group_and_time

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 9)), max_size=60)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float64])
@pytest.mark.parametrize("rows_at_once", [1, 4, 1 << 18])
@given(pairs=PAIRS, grouped=st.booleans(), sorted_users=st.sets(st.integers(0, 5)))
def test_equals_a_stable_sort(pairs, grouped, sorted_users, rows_at_once, kind):
    if grouped:
        pairs = sorted(pairs, key=lambda pair: (pair[0], pair[1] if pair[0] in sorted_users else 0))
    groups = np.array([group for group, _ in pairs], np.int32)
    times = np.array([time for _, time in pairs], kind)
    before = times.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "_ROWS", rows_at_once)
        order, in_order = by_group_and_time(groups, 7, times)
    expected = np.lexsort((times, groups))
    assert (order is None) == (expected == np.arange(len(pairs))).all()
    assert (expected if order is None else order).tolist() == expected.tolist()
    assert in_order.tolist() == times[expected].tolist() and in_order.dtype == kind
    assert times.tolist() == before.tolist(), "what was given stays as it is"


def test_times_too_far_apart_for_one_key():
    times = np.array([2**62, -(2**62), 5, 2**62, 0])
    groups = np.array([1, 1, 0, 0, 1], np.int32)
    order, in_order = by_group_and_time(groups, 2, times)
    assert order.tolist() == [2, 3, 1, 4, 0] and in_order.tolist() == [5, 2**62, -(2**62), 0, 2**62]


@pytest.mark.parametrize("kind", [np.int32, np.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_gives_the_same(threads, kind, monkeypatch):
    monkeypatch.setattr(order_module.pa, "cpu_count", lambda: threads)
    monkeypatch.setattr(order_module, "_ROWS", 1000)
    draw = np.random.default_rng(0)
    groups, times = draw.integers(0, 5000, 20_000), draw.integers(0, 50, 20_000).astype(kind)
    order, ordered = by_group_and_time(groups, 5000, times)
    assert np.array_equal(order, np.lexsort((times, groups)))
    assert np.array_equal(ordered, order_module.in_order(times, order)) and np.array_equal(ordered, times[order])
