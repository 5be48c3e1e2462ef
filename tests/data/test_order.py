"""Orders of rows: those of torch's own sampler where an order is held, and permutations that nothing holds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import RandomSampler

from recbole_hllm.data import order as module
from recbole_hllm.data.order import Grouped, Order, Permutation, Shuffled


def seeded(number):
    return torch.Generator().manual_seed(number)


def test_rows_as_they_stand():
    rows = Order(7).begin(3)
    assert rows[2:5].tolist() == [2, 3, 4] and rows[5:100].tolist() == [5, 6] and len(rows) == 7


@given(st.integers(1, 40), st.integers(0, 5))
def test_a_held_order_is_that_of_torchs_sampler_in_every_pass(size, seed):
    torchs, ours = RandomSampler(range(size), generator=seeded(seed)), Shuffled(size, seeded(seed))
    for _ in range(3):
        assert ours.begin(0)[:].tolist() == list(torchs)


def test_groups_follow_each_other():
    groups = np.array([2, 0, 1, 1, 0, 2, 2])
    orders = Grouped(groups, generator := seeded(1))
    passes = [orders.begin(0)[:].tolist() for _ in range(20)]
    members = {0: [1, 4], 1: [2, 3], 2: [0, 5, 6]}
    for rows in passes:
        first = list(dict.fromkeys(groups[rows].tolist()))
        assert rows == [row for group in first for row in members[group]]
    assert len(set(map(tuple, passes))) == 6 and generator.get_state() is not None


# ---- an order that nothing holds ----


@given(st.integers(1, 3000), st.integers(0, 2**62), st.integers(1, 700))
def test_every_number_is_there_once(size, seed, step):
    permutation = Permutation(size, seed)
    whole = permutation[:]
    assert sorted(whole.tolist()) == list(range(size)) and whole.dtype == np.int64 and len(permutation) == size
    parts = [permutation[begin : begin + step] for begin in range(0, size, step)]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("size", [2**20, 2**20 + 1, 1_500_001])
def test_many_numbers_are_there_once(size):
    assert np.bincount(Permutation(size, 5)[:], minlength=size).tolist() == [1] * size


def test_a_permutation_looks_random():
    """Bounds are about five standard deviations of a random order."""
    size = 200_000
    first, second = Permutation(size, 1)[:], Permutation(size, 2)[:]
    places = np.arange(size)
    scale = 5 / np.sqrt(size)
    for one, other in ((places, first), (first, second), (first[:-1], first[1:]), (first[:-1], second[1:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < scale
    assert (first == places).sum() < 10 and (first == second).sum() < 10
    assert (np.diff(first) == 1).sum() < 10
    cells = np.histogram2d(places, first, bins=20)[0]
    chi_square = ((cells - size / 400) ** 2 / (size / 400)).sum()
    assert abs(chi_square - 361) < 5 * np.sqrt(2 * 361)
    odd = np.histogram2d(places % 2, first % 2, bins=2)[0] / size
    assert np.abs(odd - 0.25).max() < scale


def test_many_rows_are_not_held(monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD", 100)
    generator = seeded(4)
    before = generator.get_state()
    assert isinstance(Shuffled(101, generator).begin(8), Permutation)
    assert torch.equal(generator.get_state(), before)
    assert Shuffled(101, generator).begin(8)[:].tolist() == Permutation(101, 8)[:].tolist()
    assert isinstance(Shuffled(100, generator).begin(8), np.ndarray)


def test_places_of_158_million_rows():
    permutation = Permutation(158_488_652, 3)
    places = permutation[158_488_000:]
    assert len(set(places.tolist())) == 652 and 0 <= places.min() and places.max() < 158_488_652
    assert places.mean() / 158_488_652 == pytest.approx(0.5, abs=0.06)
