"""Padded tables and searches against loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.rows.flat import Padded, as_index, first_after

BOUNDS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=7)


@given(BOUNDS, st.sampled_from([np.int64, np.float64, np.float32]))
def test_rows_are_padded_on_the_right(bounds, dtype):
    values = np.arange(100, 140, dtype=np.int32)
    begin, lengths = np.array(bounds).T
    table = Padded(begin, begin + lengths, 5)
    expected = [[*values[b : b + n].tolist(), *[0] * (5 - n)] for b, n in bounds]
    assert table.of(values, dtype).tolist() == expected and table.lengths.tolist() == lengths.tolist()
    assert table.of(values, dtype).numpy().dtype == dtype
    pairs = table.of(np.stack([values, -values], axis=1), dtype)
    assert pairs.shape == (len(bounds), 5, 2) and torch.equal(pairs[..., 0], -pairs[..., 1])
    turned = np.arange(40)[::-1]
    assert Padded(begin, begin + lengths, 5).through(turned).of(values, dtype).tolist() == [
        [*values[::-1][b : b + n].tolist(), *[0] * (5 - n)] for b, n in bounds
    ]


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=5), st.integers(-1, 6))
def test_the_first_place_after_a_bound(runs, bound):
    runs = [sorted(run) for run in runs]
    values = np.array([value for run in runs for value in run], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(run) for run in runs])])
    for itself in (False, True):
        found = first_after(values, offsets[:-1], offsets[1:], bound, itself) - offsets[:-1]
        assert found.tolist() == [sum(value < bound + (not itself) for value in run) for run in runs]
    each = np.arange(len(runs))
    found = first_after(values, offsets[:-1], offsets[1:], each) - offsets[:-1]
    assert found.tolist() == [sum(value <= number for value in run) for number, run in enumerate(runs)]


@pytest.mark.parametrize(
    "index, rows",
    [
        (3, [3]), ([1, 0], [1, 0]), ([], []), (slice(None, None, 2), [0, 2, 4]), (slice(-2, None), [3, 4]),
        (np.array([4, 4], dtype=np.int32), [4, 4]), (torch.tensor([2]), [2]), (torch.tensor(2), [2]),
        (torch.tensor([True, False, False, True, False]), [0, 3]),
    ],
)  # fmt: skip
def test_whatever_recbole_indexes_with(index, rows):
    found = as_index(index, 5)
    assert found.tolist() == rows and found.dtype == np.int64
