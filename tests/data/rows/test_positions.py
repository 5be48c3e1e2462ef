"""Runs of positions answer as the array of all positions would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.rows import positions as module
from recbole_hllm.data.rows.positions import Positions, blocks_of, narrow, ranges

RUNS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=8)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "BLOCK", 5)
    yield
    patch.undo()


def make(runs):
    """Positions of runs, so many places apart, and a plain list of (sequence, position)."""
    begin, place, plain = [], 0, []
    for number, (gap, count) in enumerate(runs):
        begin.append(place + gap)
        plain += [(number, place + gap + step) for step in range(count)]
        place += gap + count
    return Positions(np.array(begin), np.array([count for _, count in runs])), plain


@given(RUNS, st.data())
def test_every_answer_is_that_of_an_array(runs, data):
    positions, plain = make(runs)
    numbers = np.array([position for _, position in plain], dtype=np.int64)
    assert len(positions) == len(plain) and list(positions) == numbers.tolist()
    assert np.array_equal(np.asarray(positions), numbers) and np.asarray(positions).dtype == np.int64
    assert positions.counts.tolist() == [count for _, count in runs]
    assert positions.begin.tolist() == make(runs)[0].begin.tolist()
    seen = [pair for block in positions.blocks() for pair in zip(*map(np.ndarray.tolist, block), strict=True)]
    assert seen == plain and all(len(block[0]) <= 5 for block in positions.blocks())
    if plain:
        index = np.array(data.draw(st.lists(st.integers(0, len(plain) - 1), max_size=9)), dtype=np.int64)
        owners, found = positions.at(index)
        assert list(zip(owners.tolist(), found.tolist(), strict=True)) == [plain[number] for number in index]
        assert positions[index].tolist() == numbers[index].tolist() and positions[index].dtype == np.int64
        begin, end = sorted(data.draw(st.tuples(st.integers(0, len(plain)), st.integers(0, len(plain)))))
        step = data.draw(st.integers(1, 3))
        assert positions[begin:end:step].tolist() == numbers[begin:end:step].tolist()


@given(RUNS, st.integers(0, 3), st.data())
def test_parts_of_runs(runs, most, data):
    positions, plain = make(runs)
    own = [[position for owner, position in plain if owner == number] for number in range(len(runs))]
    assert list(positions.most(most)) == [position for run in own for position in run[:most]]
    assert list(positions.latest()) == [position for run in own for position in run[-1:]]
    chosen = np.array(data.draw(st.lists(st.integers(0, len(runs) - 1), max_size=5)), dtype=np.int64)
    assert positions.of_runs(chosen).tolist() == [position for number in chosen for position in own[number]]
    assert positions.counts_of(chosen).tolist() == [len(own[number]) for number in chosen]


@given(RUNS)
def test_values_at_the_positions(runs):
    positions, plain = make(runs)
    where = [position for _, position in plain]
    values = np.arange(100, dtype=np.float32)[:, None] * [1, 2]
    assert np.array_equal(positions.pick(values), values[where]) and positions.pick(values).dtype == values.dtype
    numbers = np.arange(100) % 7
    assert positions.count(numbers, 9).tolist() == np.bincount(numbers[where], minlength=9).tolist()


def test_positions_above_32_bits():
    positions = Positions(np.array([0, 2**31 + 5]), np.array([2, 3]))
    assert list(positions) == [0, 1, 2**31 + 5, 2**31 + 6, 2**31 + 7]
    assert positions.before.dtype == np.int32 and positions[np.array([4])].tolist() == [2**31 + 7]
    assert positions.latest().begin.tolist() == [1, 2**31 + 7]


def test_memory_is_that_of_the_sequences():
    positions = Positions(np.arange(1000) * 10**6, np.full(1000, 10**6))
    assert len(positions) == 10**9
    assert sum(array.nbytes for array in vars(positions).values()) < 10_000


def test_numbers_are_kept_in_32_bits_where_they_fit():
    assert narrow(np.array([2**31 - 1, -(2**31)])).dtype == np.int32
    assert narrow(np.array([2**31])).dtype == narrow(np.array([-(2**31) - 1])).dtype == np.int64
    small = np.array([1], dtype=np.int32)
    assert narrow(small) is small and narrow(np.empty(0, dtype=np.int64)).dtype == np.int32


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 12))
def test_blocks_hold_whole_sequences(lengths, size):
    totals = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    blocks = list(blocks_of(totals, size))
    assert [number for begin, end in blocks for number in range(begin, end)] == list(range(len(lengths)))
    assert all(sum(lengths[begin:end]) <= size or end == begin + 1 for begin, end in blocks)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), min_size=1, max_size=6))
def test_ranges(pairs):
    begin, lengths = np.array(pairs).T
    assert ranges(begin, begin + lengths).tolist() == [b + n for b, length in pairs for n in range(length)]
