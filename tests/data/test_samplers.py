"""Drawn items: RecBole's values from the same random numbers, RecBole's shares, and bounded memory."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.sampler import RepeatableSampler, Sampler

from recbole_hllm.data.rows import positions as module
from recbole_hllm.data.rows.positions import Positions
from recbole_hllm.data.rows.sequences import Sequences
from recbole_hllm.data.samplers import ItemSampler, OwnItems

N_ITEMS = 30


def interactions(users=12, rows=120, seed=0):
    """Users and items of some interactions, users in order."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.integers(1, users, rows)), rng.integers(1, N_ITEMS - 5, rows)


def recboles(kind, users, items, distribution="uniform", alpha=1.0):
    feat = {"user_id": torch.from_numpy(users), "item_id": torch.from_numpy(items)}
    data = SimpleNamespace(
        inter_feat=feat, uid_field="user_id", iid_field="item_id", user_num=users.max() + 1, item_num=N_ITEMS
    )
    return kind(["train"], data, distribution, alpha).set_phase("train")


def own_items(users, items):
    sequences = Sequences.from_sorted(users, items, np.arange(len(users)), users.max() + 1)
    positions = Positions(sequences.offsets[:-1], sequences.lengths)
    return OwnItems.at(positions, sequences, users.max() + 1, N_ITEMS)


@pytest.mark.parametrize("kind", [Sampler, RepeatableSampler])
@pytest.mark.parametrize("number, of_one", [(1, False), (3, False), (4, True)])
def test_uniform_items_are_recboles(monkeypatch, kind, number, of_one):
    users, items = interactions()
    ours = ItemSampler(N_ITEMS, 7, own=own_items(users, items) if kind is Sampler else None)
    stream = np.random.default_rng(5)
    monkeypatch.setattr("numpy.random.randint", lambda low, high, size: stream.integers(low, high, size))
    ours.random = np.random.default_rng(5)
    rows = np.flatnonzero(users == 4) if of_one else np.random.default_rng(1).permutation(len(users))
    arguments = users[rows], items[rows], number
    theirs = recboles(kind, users, items).sample_by_user_ids(*arguments)
    drawn = ours.sample_by_user_ids(*arguments)
    assert torch.equal(drawn, theirs) and drawn.dtype == torch.int64
    assert ours.random.random() == stream.random(), "as many numbers were drawn"


def test_other_items_alone_are_drawn():
    users, items = interactions()
    sampler = ItemSampler(N_ITEMS, 1, own=own_items(users, items))
    drawn = sampler.sample_by_user_ids(users, items, 50).view(50, -1).numpy()
    own = {user: set(items[users == user].tolist()) for user in users.tolist()}
    for row, user in enumerate(users.tolist()):
        assert own[user] | set(drawn[:, row].tolist()) <= set(range(1, N_ITEMS))
        assert not own[user] & set(drawn[:, row].tolist())
    repeated = ItemSampler(N_ITEMS, 1).sample_by_user_ids(users, items, 50).view(50, -1).numpy()
    assert (repeated != items).all() and {(*pair,) for pair in zip(users, repeated[0], strict=True)} & {
        (*pair,) for pair in zip(users, items, strict=True)
    }, "other items of the user are negatives"


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_popular_items_have_recboles_shares(alpha):
    """Chi-square of 60000 draws against the chances of RecBole's alias table, 1 in 10^4 to fail for a right sampler."""
    users, items = interactions()
    theirs = recboles(Sampler, users, items, "popularity", alpha)
    chances = np.zeros(N_ITEMS)
    for item, kept in theirs.prob.items():
        chances[item] += min(kept, 1) / len(theirs.prob)
        if theirs.alias[item] != -1:
            chances[theirs.alias[item]] += (1 - kept) / len(theirs.prob)
    counts = np.bincount(items, minlength=N_ITEMS)
    sampler = ItemSampler(N_ITEMS, 3, weights=np.where(counts > 0, counts / counts.sum(), 0) ** alpha * (counts > 0))
    drawn = np.bincount(sampler.sampling(60_000), minlength=N_ITEMS)
    assert (drawn[chances == 0] == 0).all()
    expected = 60_000 * chances[chances > 0]
    chi_square, free = ((drawn[chances > 0] - expected) ** 2 / expected).sum(), (chances > 0).sum() - 1
    assert chi_square < free + 4 * np.sqrt(2 * free) + 8


def test_uniform_items_are_alike():
    drawn = np.bincount(ItemSampler(N_ITEMS, 3).sampling(60_000), minlength=N_ITEMS)
    expected = 60_000 / (N_ITEMS - 1)
    assert drawn[0] == 0 and ((drawn[1:] - expected) ** 2 / expected).sum() < 28 + 4 * np.sqrt(56) + 8


def test_a_seed_says_what_is_drawn():
    sampler = ItemSampler(1000, 0)
    draws = []
    for seed in ((1, 2, 0), (1, 3, 0), (1, 2, 0), (1, 2, 1)):
        sampler.seed(seed)
        draws.append(sampler.sampling(20).tolist())
    assert draws[0] == draws[2] and len(set(map(tuple, draws))) == 3
    before = np.random.get_state()[1].tolist()
    sampler.sampling(100)
    assert np.random.get_state()[1].tolist() == before


# ---- what users have ----

SEQUENCES = st.lists(
    st.tuples(st.integers(1, 5), st.lists(st.integers(1, N_ITEMS - 1), max_size=7)), min_size=1, max_size=8
).filter(lambda owned: any(own for _, own in owned))


@settings(max_examples=60)
@given(SEQUENCES, st.integers(1, 9), st.booleans())
def test_membership_is_that_of_sets(owned, block, first_alone):
    """Several sequences of one user, in any order, of which the first item alone may count."""
    items = np.array([item for _, own in owned for item in own], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(own) for _, own in owned])])
    sequences = Sequences(items, np.arange(len(items)), offsets, np.array([user for user, _ in owned]))
    counts = np.minimum(np.diff(offsets), 1) if first_alone else np.diff(offsets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.blocks_of, "__defaults__", (block,))
        own = OwnItems.at(Positions(offsets[:-1], counts), sequences, 7, N_ITEMS)
    sets = {user: set() for user in range(7)}
    for user, had in owned:
        sets[user] |= set(had[:1] if first_alone else had)
    users, wanted = (grid.reshape(-1) for grid in np.meshgrid(np.arange(7), np.arange(1, N_ITEMS)))
    assert own.has(users, wanted).tolist() == [item in sets[user] for user, item in zip(users, wanted, strict=True)]


def test_no_python_object_of_a_user_or_an_interaction_is_kept():
    users, items = np.sort(np.random.default_rng(0).integers(1, 5000, 60_000)), np.ones(60_000, dtype=np.int32)
    own = own_items(users, items)
    assert own.items.dtype == own.offsets.dtype == np.int32
    assert own.items.nbytes + own.offsets.nbytes <= 4 * (60_000 + 5001)
    before = sys.getallocatedblocks()
    again = own_items(users, items)
    assert sys.getallocatedblocks() - before < 500 and len(again.items) == 60_000
