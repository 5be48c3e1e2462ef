"""Indexes of faiss."""

import sys

import pytest
import torch
from small_export import WIDTH, served_vectors

from recbole_hllm.errors import ConfigError, MissingExtra
from recbole_hllm.serving import faiss_index as module
from recbole_hllm.serving.faiss_index import KINDS, FaissIndex, Measured, filled, neighbours
from recbole_hllm.serving.index import ExactIndex

pytest.importorskip("faiss")


def users(count=20):
    return torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(5))[:count]


def index_of(served, kind, effort=128):
    return FaissIndex(served, filled(served.items, kind), kind, Measured(1.0, 5, 20, "random", effort, 1.0))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def same(index, served, k=5):
    found, exact = index.search(users(), k), ExactIndex(served).search(users(), k)
    assert torch.equal(found[1], exact[1])
    torch.testing.assert_close(found[0], exact[0])


@pytest.mark.parametrize("cosine", [False, True])
def test_with_effort_enough_all_kinds_find_what_the_exact_one_does(kind, cosine):
    served = served_vectors(300, cosine)
    index = index_of(served, kind)
    assert not index.exact
    same(index, served)
    same(index, served, k=1)


def test_items_that_are_added_and_changed_are_scored_beside_it(kind):
    served = served_vectors(100)
    index = index_of(served, kind)
    same(index, served)
    served.add(3 * users(4))
    same(index, served)
    index.changed(torch.tensor([7, 8, 102]))
    served.replace(torch.tensor([7, 8, 102]), torch.stack([*(4 * users(2)), torch.zeros(WIDTH)]))
    same(index, served)
    index.changed(torch.tensor([8]))
    served.replace(torch.tensor([8]), -5 * users(1))
    same(index, served)
    assert index.search(users(1), 1)[1].tolist() == [[7]]


def test_each_item_is_found_once_and_padding_never(kind):
    served = served_vectors(30)
    index = index_of(served, kind)
    index.changed(torch.tensor([3]))
    served.add(users(3))
    scores, numbers = index.search(users(), 33)
    assert torch.equal(numbers.sort(1).values, torch.arange(1, 34).expand(20, -1)) or kind != "flat"
    real = [[number for number in row if number] for row in numbers.tolist()]
    assert all(len(set(row)) == len(row) for row in real)
    assert torch.isneginf(scores[numbers == 0]).all()


def test_where_it_finds_too_few_the_rest_is_padding():
    served = served_vectors(60)
    index = index_of(served, "ivf", effort=1)  # one list of many
    scores, numbers = index.search(users(), 50)
    assert (numbers == 0).any() and torch.isneginf(scores[numbers == 0]).all()
    assert (numbers[:, 0] > 0).all() and numbers.max() <= 60


def test_beyond_some_number_all_items_are_scored(monkeypatch):
    monkeypatch.setattr(module, "MOST", 10)
    served = served_vectors(60)
    index = index_of(served, "ivf", effort=1)
    assert not torch.equal(index.search(users(), 10)[1], ExactIndex(served).search(users(), 10)[1])
    same(index, served, k=11)
    index.changed(torch.arange(1, 10))
    same(index, served, k=2)


def test_users_are_searched_in_blocks(kind, monkeypatch):
    served = served_vectors(100)
    index = index_of(served, kind)
    monkeypatch.setattr(module, "_MOST_GATHERED", 5 * WIDTH * 3)
    same(index, served)


def test_more_neighbours_take_more_effort(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "neighbours", lambda *words: asked.append(words[-1]) or neighbours(*words))
    served = served_vectors(100)
    for kind in ("hnsw", "ivf"):
        index = index_of(served, kind, effort=7)
        for k in (1, 5, 10, 12):
            index.search(users(1), k)
    assert asked == [7, 7, 14, 17, 7, 7, 7, 7]


def test_a_larger_effort_finds_more():
    served = served_vectors(2000)
    best = ExactIndex(served).search(users(), 20)[1]
    for kind in ("ivf", "hnsw"):
        built = filled(served.items, kind, breadth=4)
        efforts = KINDS[kind].efforts(2000)
        least, most = (neighbours(built, kind, users(), 20, effort) for effort in (efforts[0], efforts[-1]))
        assert shared(least, best) < shared(most, best)


def shared(found, best):
    return sum(len({*row} & {*right}) for row, right in zip(found.tolist(), best.tolist(), strict=True))


def test_efforts_rise_to_the_last_one():
    assert KINDS["hnsw"].efforts(10) == [64, 128, 256, 512, 1024, 2048]
    assert KINDS["ivf"].efforts(120) == [1, 2, 4, 8, 16, 32, 43]
    assert KINDS["ivf"].efforts(1) == [1, 2, 4] and KINDS["flat"].efforts(50) == [1]


def test_an_unknown_kind_and_faiss_missing(monkeypatch):
    with pytest.raises(ConfigError, match="index: 'hsnw' is not one of exact, flat, ivf, hnsw"):
        filled(torch.zeros(3, 2), "hsnw")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"faiss-cpu.*pip install 'recbole-hllm\[faiss\]'"):
        filled(torch.zeros(3, 2), "hnsw")
