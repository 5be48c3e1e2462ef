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
def test_values_that_cannot_be_used(few, few_config, name, key, value):
    with pytest.raises(ConfigError, match=f"{key}: "):
        few(name, **{key: value})
    config = few_config(name, **{key: value})
    with pytest.raises(ConfigError, match=f"{key}: "):  # before data are read
        config.spec.model.check_keys(config)


def test_nothing_is_computed_where_a_checkpoint_brings_it(few, scores, monkeypatch):
    monkeypatch.setattr(neighbours, "ComputeSimilarity", None)
    model, _ = few("ItemKNN", Weights.FOLLOW)
    assert not scores(model, [3]).any()


# ---- scored from the history ----


def test_itemknn_of_a_history(tested):
    made = tested("ItemKNN", k=3, score_from="history")
    expected = made.had @ made.model.weights().toarray()
    np.testing.assert_allclose(made.model.full_sort_predict(made.rows).numpy(), expected, atol=1e-5)
    by_default = tested("ItemKNN", k=3)
    assert (by_default.model.weights() != made.model.weights()).nnz == 0, "weights are of the training"
    training = by_default.model.full_sort_predict(by_default.rows).numpy()
    assert abs(training - expected).max() > 0.1


def test_asymknn_of_a_history(tested):
    made = tested("AsymKNN", k=100, alpha=0.3, beta=0.7, q=2, score_from="history")
    weights = made.model.weights().toarray()
    norms = np.outer((made.had**2).sum(1) ** 0.7, (weights**2).sum(1) ** 0.3) + 1e-6
    expected = (made.had @ weights / norms) ** 2
    np.testing.assert_allclose(made.model.full_sort_predict(made.rows).numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["ItemKNN", "AsymKNN"])
def test_neighbours_of_a_user_are_those_of_the_training(few, few_config, name):
    keys = {"knn_method": "user", "score_from": "history"}
    config = few_config(name, **keys)
    for refuse in (lambda: config.spec.model.check_keys(config), lambda: few(name, **keys)):
        with pytest.raises(ConfigError, match="^score_from: history: with knn_method: user .* take knn_method: item"):
            refuse()
