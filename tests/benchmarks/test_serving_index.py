"""The catalogue that indexes are measured on."""

import importlib
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("serving_index")


def test_vectors_lie_in_clusters_whose_sizes_fall(program):
    vectors, clusters = program.clustered(3000, 16)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3000))
    sizes = torch.bincount(clusters, minlength=program.CLUSTERS)
    assert sizes[0] > sizes[10] > sizes[1000:].float().mean()
    same = vectors[clusters == 0] @ vectors[clusters == 0].T
    assert same.mean() > 2 * (vectors[:500] @ vectors[:500].T).mean().abs()
    assert torch.equal(vectors, program.clustered(3000, 16)[0])


def test_histories_are_of_one_to_three_clusters(program):
    _, clusters = program.clustered(3000, 16)
    histories = program.histories_of(clusters, 40)
    assert len(histories.users) == 40 and len(histories.items) == 40 * program.LENGTH
    liked = [len(set(clusters[own - 1].tolist())) for own in histories.items.reshape(40, -1)]
    assert set(liked) == {1, 2, 3}


def test_ways_take_turns(program):
    called = []
    ways = {name: lambda users, name=name: called.append((name, len(users))) for name in "ab"}
    times = program.milliseconds(ways, torch.zeros(5, 2), 2)
    assert called == [("a", 2), ("b", 2), ("a", 2), ("b", 2), ("a", 1), ("b", 1)]
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}


def test_a_user_is_near_the_last_item(program):
    vectors = torch.nn.functional.normalize(torch.randn(4, 3, 64, generator=torch.Generator().manual_seed(0)), dim=2)
    histories = program.Histories(vectors, torch.ones(4, 3), torch.tensor([3, 3, 3, 3]))
    users = torch.nn.functional.normalize(program.NoisyUser({})(histories), dim=1)
    cosines = (users[:, None] * vectors).sum(2)
    assert ((cosines[:, 2] > 0.5) & (cosines[:, 2] < 0.9)).all() and cosines[:, :2].abs().max() < 0.5
