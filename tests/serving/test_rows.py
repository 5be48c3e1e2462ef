"""Histories as numbers, against lists."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.serving.rows import Rows

HISTORIES = st.lists(st.lists(st.integers(1, 2**41), max_size=6), min_size=1, max_size=5)


def as_lists(table, lengths):
    return [row[:length] for row, length in zip(table.tolist(), lengths.tolist(), strict=True)]


@given(HISTORIES, st.integers(1, 7))
def test_rows_and_their_last_items_are_those_of_the_lists(histories, length):
    times = [[float(item % 1000) for item in history] for history in histories]
    rows = Rows.of(histories, times, [1.0] * len(histories))
    assert as_lists(rows.items, rows.lengths) == histories and as_lists(rows.times, rows.lengths) == times
    assert rows.last.tolist() == [history[-1] if history else 0 for history in histories]
    cut = rows.cut(length)
    assert cut.items.shape[1] <= max(length, 1)
    assert as_lists(cut.items, cut.lengths) == [history[-length:] for history in histories]
    assert as_lists(cut.times, cut.lengths) == [seconds[-length:] for seconds in times]
    assert cut.last.tolist() == rows.last.tolist() and cut.at.tolist() == [1.0] * len(histories)


def test_places_after_the_last_item_are_padding():
    rows = Rows.of([[5, 6, 7, 8], [9], []], [[1.0, 2.0, 3.0, 4.0], [5.0], []], [9.0, 9.0, 9.0])
    cut = rows.cut(2)
    assert cut.items.tolist() == [[7, 8], [9, 0], [0, 0]] and cut.times.tolist() == [[3.0, 4.0], [5.0, 0.0], [0.0, 0.0]]
    assert cut.lengths.tolist() == [2, 1, 0] and cut.items.dtype == torch.long and cut.times.dtype == torch.float64


def test_none_and_times_that_are_not_there():
    rows = Rows.of([])
    assert rows.items.shape == (0, 1) and rows.times is None and rows.at is None
    assert Rows.of([[1, 2, 3]]).cut(1).times is None
