"""Sampled evaluation candidates: what may be drawn, how often, and that they stay the same."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.data import candidates as candidates_module
from recbole_hllm.data.candidates import draw_candidates
from recbole_hllm.errors import DataError


def flat(sequences):
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    return offsets, np.array([item for sequence in sequences for item in sequence], dtype=np.int64)


@st.composite
def cases(draw):
    """A catalogue, users' sequences (repetitions, empty ones), rows, weights, and a possible number."""
    n_items = draw(st.integers(2, 40))
    items = st.integers(1, n_items - 1)
    sequences = draw(st.lists(st.lists(items, max_size=30), min_size=1, max_size=5))
    rows_user = np.array(draw(st.lists(st.integers(0, len(sequences) - 1), max_size=12)), dtype=np.int64)
    weights = draw(st.none() | st.lists(st.sampled_from([0, 1, 2, 1000]), min_size=n_items, max_size=n_items))
    drawable = {i for i in range(1, n_items) if weights is None or weights[i]}
    most = min(len(drawable - set(sequence)) for sequence in sequences)
    number = draw(st.integers(0, most))
    return n_items, sequences, rows_user, None if weights is None else np.array(weights), drawable, number


@settings(max_examples=300)
@given(cases(), st.integers(0, 2**32))
def test_never_padding_never_own_never_weightless_never_twice(case, seed):
    n_items, sequences, rows_user, weights, drawable, number = case
    drawn = draw_candidates(rows_user, *flat(sequences), n_items, number, seed, weights)
    assert drawn.shape == (len(rows_user), number) and drawn.dtype == np.int64
    for user, row in zip(rows_user, drawn, strict=True):
        assert len(set(row)) == number
        assert set(row) <= drawable - set(sequences[user])


@settings(max_examples=100)
@given(cases(), st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 12))
def test_a_row_depends_on_its_own_position_and_user_only(case, seed, block_rows, kept):
    n_items, sequences, rows_user, weights, _, number = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates_module, "_BLOCK_ROWS", block_rows)
        drawn = draw_candidates(rows_user, *flat(sequences), n_items, number, seed, weights)
        others = rows_user.copy()
        others[kept:] = 0
        again = draw_candidates(others, *flat(sequences), n_items, number, seed, weights)
        shorter = draw_candidates(rows_user[:kept], *flat(sequences), n_items, number, seed, weights)
    assert (again[:kept] == drawn[:kept]).all()
    assert (shorter == drawn[:kept]).all()


def test_same_seed_same_candidates_whatever_the_global_random_state():
    sequences = [[1, 2, 3], [4, 5]]
    rows_user = np.array([0, 1, 0, 1])
    state = np.random.get_state()[1].copy()
    first = draw_candidates(rows_user, *flat(sequences), 60, 20, seed=7)
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(3)
    assert (draw_candidates(rows_user, *flat(sequences), 60, 20, seed=7) == first).all()
    assert (draw_candidates(rows_user, *flat(sequences), 60, 20, seed=8) != first).any()
    assert (first[0] != first[2]).any()  # rows of one user are drawn independently


def test_uniform_frequencies():
    n_rows, n_items, number = 20_000, 21, 5
    own = [2, 3, 3, 9]
    drawn = draw_candidates(np.zeros(n_rows, dtype=np.int64), *flat([own]), n_items, number, seed=1)
    left = sorted(set(range(1, n_items)) - set(own))
    chance = number / len(left)
    counts = np.bincount(drawn.ravel(), minlength=n_items)[left]
    deviation = np.sqrt(n_rows * chance * (1 - chance))
    assert (abs(counts - n_rows * chance) < 4.5 * deviation).all()
    first = np.bincount(drawn[:, 0], minlength=n_items)[left]  # every place of the row is uniform too
    assert (abs(first - n_rows / len(left)) < 4.5 * np.sqrt(n_rows / len(left))).all()


@pytest.mark.parametrize("rounds", ["rejection", "exact"])
def test_popularity_frequencies_are_those_of_successive_draws(rounds, monkeypatch):
    """Ordered triples of four items: the exact probability of each, and what ``rng.choice`` gives."""
    if rounds == "exact":  # one draw by rejection, which may hit the user's own item, then the exact rest
        monkeypatch.setattr(candidates_module, "_COLUMNS", 1)
        monkeypatch.setattr(candidates_module, "_PATIENCE", 0)
    weights = np.array([50.0, 8, 100, 4, 2, 0, 1])  # item 0 is the padding, item 2 the user's own
    n_rows, left = 30_000, [1, 3, 4, 6]
    drawn = draw_candidates(np.zeros(n_rows, dtype=np.int64), *flat([[2]]), 7, 3, seed=5, weights=weights)
    rng, chances = np.random.default_rng(0), weights[left] / weights[left].sum()
    reference = np.array([rng.choice(left, 3, replace=False, p=chances) for _ in range(n_rows)])
    for triple in itertools.permutations(left, 3):
        chance, total = 1.0, weights[left].sum()
        for item in triple:
            chance *= weights[item] / total
            total -= weights[item]
        deviation = np.sqrt(n_rows * chance * (1 - chance))
        assert abs((drawn == triple).all(axis=1).sum() - n_rows * chance) < 4.5 * deviation + 1
        assert abs((reference == triple).all(axis=1).sum() - n_rows * chance) < 4.5 * deviation + 1


def test_all_items_left_are_drawn_when_just_enough_are_left():
    drawn = draw_candidates(np.array([0, 0]), *flat([[5, 6, 7]]), 500, 496, seed=0)
    assert (np.sort(drawn, axis=1) == np.setdiff1d(np.arange(1, 500), [5, 6, 7])).all()


def test_too_few_items_left_names_the_user_with_the_fewest():
    sequences = [[1], [1, 2, 3, 3], [4], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
    with pytest.raises(DataError, match=r"user 1 \(internal id\) has only 6 items left.*uni6\) or 'full'"):
        draw_candidates(np.array([0, 1, 2]), *flat(sequences), 10, 9, seed=0)
    with pytest.raises(DataError, match=r"user 3 .* only 0 items left.*Choose 'full'"):
        draw_candidates(np.array([0, 3]), *flat(sequences), 10, 2, seed=0)
    weights = np.array([0, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    with pytest.raises(DataError, match=r"user 1 .* only 1 items left.*: 4 can be drawn"):
        draw_candidates(np.array([0, 1]), *flat(sequences), 10, 2, seed=0, weights=weights)
    assert draw_candidates(np.array([0, 2]), *flat(sequences), 10, 8, seed=0).shape == (2, 8)
