"""ItemKNN and AsymKNN against plain formulas."""

import numpy as np
import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.baselines import neighbours


def nearest(similarity, k):
    """Only the k largest of each column."""
    np.fill_diagonal(similarity, 0)
    return np.where(similarity >= np.sort(similarity, axis=0)[-k], similarity, 0)


@pytest.mark.parametrize("k", [2, 100])
@pytest.mark.parametrize("shrink", [0.0, 4.0])
def test_itemknn_is_the_cosine_of_the_nearest(few, scores, k, shrink):
    model, matrix = few("ItemKNN", k=k, shrink=shrink)
    norms = np.linalg.norm(matrix, axis=0)
    cosines = nearest(matrix.T @ matrix / (np.outer(norms, norms) + shrink + 1e-6), min(k, len(norms)))
    found = model.weights().toarray()
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(cosines, axis=0), atol=1e-6)  # ties are cut as they come
    np.testing.assert_allclose(scores(model, [3, 1, 12]), matrix[[3, 1, 12]] @ found, atol=1e-5)
    assert model.inference_parameters() == np.count_nonzero(found)


def test_neighbours_may_be_users(few, scores):
    model, matrix = few("ItemKNN", knn_method="user", k=100)
    norms = np.linalg.norm(matrix, axis=1)
    cosines = matrix @ matrix.T / (np.outer(norms, norms) + 1e-6)
    np.fill_diagonal(cosines, 0)
    np.testing.assert_allclose(scores(model, [3, 1]), (cosines @ matrix)[[3, 1]], atol=1e-5)


@pytest.mark.parametrize("method", ["item", "user"])
def test_asymknn(few, scores, method):
    """Aiolli (RecSys 2013): asymmetric cosines, scores divided by norms of both sides."""
    alpha, beta, q = 0.3, 0.7, 2
    model, matrix = few("AsymKNN", k=100, alpha=alpha, beta=beta, q=q, knn_method=method)
    sides = matrix if method == "item" else matrix.T
    sizes = sides.sum(axis=0)
    weights = sides.T @ sides / (np.outer(sizes ** (1 - alpha), sizes**alpha) + 1e-6)
    np.fill_diagonal(weights, 0)
    if method == "item":
        raw, rows, columns = matrix @ weights, (matrix**2).sum(1), (weights**2).sum(1)
    else:
        raw, rows, columns = weights.T @ matrix, (weights.T**2).sum(1), (matrix**2).sum(0)
    expected = (raw / (np.outer(rows**beta, columns ** (1 - beta)) + 1e-6)) ** q
    np.testing.assert_allclose(scores(model, [3, 1, 12]), expected[[3, 1, 12]], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name, key, value",
    [("ItemKNN", "k", 0), ("ItemKNN", "knn_method", "both"), ("AsymKNN", "alpha", 1.5), ("AsymKNN", "beta", -0.1),
     ("AsymKNN", "q", 0), ("AsymKNN", "k", 1.5)],
)  # fmt: skip
def test_values_that_cannot_be_used(few, name, key, value):
    with pytest.raises(ConfigError, match=f"{key}: "):
        few(name, **{key: value})


def test_nothing_is_computed_where_a_checkpoint_brings_it(few, scores, monkeypatch):
    monkeypatch.setattr(neighbours, "ComputeSimilarity", None)
    model, _ = few("ItemKNN", Weights.FOLLOW)
    assert not scores(model, [3]).any()
