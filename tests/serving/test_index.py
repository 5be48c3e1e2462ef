"""The exact index."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.serving import index as module
from recbole_hllm.serving.index import ExactIndex, best_of, scores_of


class Vectors:
    """Items as a Recommender has them."""

    def __init__(self, items):
        self.items = items


@given(st.integers(1, 1000), st.integers(1, 40), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_best_are_those_of_topk(items, k, users, seed):
    scores = torch.randn(users, items, generator=torch.Generator().manual_seed(seed))
    k = min(k, items)
    best, places = best_of(scores, k)
    assert torch.equal(best, scores.topk(k).values)
    assert torch.equal(scores.gather(1, places), best)
    assert all(len(set(row)) == k for row in places.tolist())


def test_groups_are_looked_at_where_there_are_many(monkeypatch):
    """The best may all be in one group, in the last whole one, or in the rest behind it."""
    monkeypatch.setattr(module, "_GROUP", 4)
    scores = torch.arange(30.0).repeat(3, 1)
    scores[0] = -scores[0]
    scores[1, 27] = 99
    best, places = best_of(scores, 3)
    assert places.tolist() == [[0, 1, 2], [27, 29, 28], [29, 28, 27]]
    assert best[1].tolist() == [99, 29, 28]


def test_minus_infinity_is_found_last():
    scores = torch.full((1, 1000), -torch.inf)
    scores[0, 500] = 1.0
    best, places = best_of(scores, 2)
    assert places[0, 0] == 500 and best.tolist() == [[1.0, -torch.inf]]


@pytest.mark.parametrize("users", [1, 2, 8, 9, 30])
def test_scores_are_products_and_padding_has_none(users):
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(users, 6, generator=generator), torch.randn(50, 6, generator=generator)
    scores = scores_of(users, items)
    assert torch.isneginf(scores[:, 0]).all()
    torch.testing.assert_close(scores[:, 1:], (users[:, None] * items[None, 1:]).sum(-1))


def test_users_are_searched_in_blocks_and_all_items_can_be_wanted(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(7, 4, generator=generator), torch.randn(11, 4, generator=generator)
    whole = ExactIndex(Vectors(items)).search(users, 99)
    monkeypatch.setattr(module, "MOST_SCORES", 25)
    blocks = ExactIndex(Vectors(items)).search(users, 99)
    assert whole[1].shape == (7, 10) and 0 not in whole[1]
    assert torch.equal(whole[1], blocks[1])
    torch.testing.assert_close(whole[0], blocks[0])
    assert torch.equal(whole[1].sort(1).values, torch.arange(1, 11).expand(7, -1))


def test_items_that_are_added_are_found():
    vectors = Vectors(torch.eye(3))
    index = ExactIndex(vectors)
    vectors.items = torch.cat([vectors.items, 9 * torch.ones(1, 3)])
    index.changed(torch.tensor([1]))
    assert index.search(torch.ones(1, 3), 1)[1].tolist() == [[3]]
