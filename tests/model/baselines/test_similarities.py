"""EASE, ItemKNN, AsymKNN and SLIMElastic against plain formulas."""

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from sklearn.linear_model import ElasticNet

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Weights


@pytest.fixture
def built(tmp_path, write_dataset):
    """(model, keys) -> a model on data of 12 users and 7 items, some of which a user has twice, and the dense matrix
    of its training interactions."""
    rng = np.random.default_rng(5)
    places = [(user, step) for user in range(12) for step in range(4 + user % 4)]
    rows = [(f"u{user}", f"i{rng.integers(0, 7) ** 2 // 7}", 10 * step + user) for user, step in places]
    write_dataset(tmp_path, "few", rows)

    def make(name, weights=Weights.FRESH, **keys):
        keys = {"data_path": str(tmp_path), "use_gpu": False, "topk": [2], "valid_metric": "MRR@2", **keys}
        config = Config(name, "few", config_dict=keys)
        train = data_preparation(config, create_dataset(config))[0]._dataset
        assert np.max(matrix := train.inter_matrix("csr").toarray()) > 1
        return config.spec.build(config, train, weights), matrix

    return make


def scores(model, users):
    with torch.no_grad():
        table = model.full_sort_predict(Interaction({"user_id": torch.as_tensor(users)}))
    return table.numpy().reshape(len(users), -1)


def test_ease_is_the_closed_form(built):
    model, matrix = built("EASE", reg_weight=3.0)
    precision = np.linalg.inv(matrix.T @ matrix + 3 * np.eye(matrix.shape[1]))
    weights = np.eye(len(precision)) - precision / np.diag(precision)
    np.testing.assert_allclose(model.item_similarity.numpy(), weights, atol=1e-5)
    np.testing.assert_allclose(scores(model, [3, 1, 12]), matrix[[3, 1, 12]] @ weights, atol=1e-5)
    assert model.inference_parameters() == weights.size


@pytest.mark.parametrize("strength", [0.0, -1.0])
def test_ease_without_a_solution(built, strength):
    with pytest.raises(ConfigError, match="reg_weight: EASE has no solution with .* above 0"):
        built("EASE", reg_weight=strength)


def nearest(similarity, k):
    """Only the k largest of each column."""
    np.fill_diagonal(similarity, 0)
    return np.where(similarity >= np.sort(similarity, axis=0)[-k], similarity, 0)


@pytest.mark.parametrize("k", [2, 100])
@pytest.mark.parametrize("shrink", [0.0, 4.0])
def test_itemknn_is_the_cosine_of_the_nearest(built, k, shrink):
    model, matrix = built("ItemKNN", k=k, shrink=shrink)
    norms = np.linalg.norm(matrix, axis=0)
    cosines = nearest(matrix.T @ matrix / (np.outer(norms, norms) + shrink + 1e-6), min(k, len(norms)))
    found = model.weights().toarray()
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(cosines, axis=0), atol=1e-6)  # ties are cut as they come
    np.testing.assert_allclose(scores(model, [3, 1, 12]), matrix[[3, 1, 12]] @ found, atol=1e-5)
    assert model.inference_parameters() == np.count_nonzero(found)


def test_neighbours_may_be_users(built):
    model, matrix = built("ItemKNN", knn_method="user", k=100)
    norms = np.linalg.norm(matrix, axis=1)
    cosines = matrix @ matrix.T / (np.outer(norms, norms) + 1e-6)
    np.fill_diagonal(cosines, 0)
    np.testing.assert_allclose(scores(model, [3, 1]), (cosines @ matrix)[[3, 1]], atol=1e-5)


@pytest.mark.parametrize("method", ["item", "user"])
def test_asymknn(built, method):
    """Aiolli (RecSys 2013): asymmetric cosines, scores divided by norms of both sides."""
    alpha, beta, q = 0.3, 0.7, 2
    model, matrix = built("AsymKNN", k=100, alpha=alpha, beta=beta, q=q, knn_method=method)
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


@pytest.mark.parametrize("hide", [True, False])
def test_slim_is_an_elastic_net_for_each_item(built, hide):
    model, matrix = built("SLIMElastic", alpha=0.05, l1_ratio=0.1, hide_item=hide)
    weights = np.zeros((matrix.shape[1],) * 2)
    for item in range(1, len(weights)):
        others = matrix.copy()
        if hide:
            others[:, item] = 0
        net = ElasticNet(alpha=0.05, l1_ratio=0.1, positive=True, fit_intercept=False, tol=1e-8, max_iter=10_000)
        weights[:, item] = net.fit(others, matrix[:, item]).coef_
    np.testing.assert_allclose(model.weights().toarray(), weights, atol=2e-3)
    assert (np.diag(weights) > 0).any() != hide and np.count_nonzero(weights) > 5
    found = model.weights().toarray()
    np.testing.assert_allclose(scores(model, [3, 1]), matrix[[3, 1]] @ found, atol=1e-5)


@pytest.mark.parametrize("name", ["ItemKNN", "SLIMElastic", "EASE"])
def test_nothing_is_computed_where_a_checkpoint_brings_it(built, monkeypatch, name):
    from recbole_hllm.model.baselines import ease, neighbours, slimelastic

    for module, function in ((ease, "closed_form"), (neighbours, "ComputeSimilarity"), (slimelastic, "ElasticNet")):
        monkeypatch.setattr(module, function, None)
    model, _ = built(name, Weights.FOLLOW)
    assert not scores(model, [3]).any()


@pytest.mark.parametrize(
    "name, key, value",
    [("ItemKNN", "k", 0), ("ItemKNN", "knn_method", "both"), ("AsymKNN", "alpha", 1.5), ("AsymKNN", "beta", -0.1),
     ("AsymKNN", "q", 0), ("AsymKNN", "k", 1.5), ("SLIMElastic", "alpha", -1.0), ("SLIMElastic", "l1_ratio", 2.0)],
)  # fmt: skip
def test_values_that_cannot_be_used(built, name, key, value):
    with pytest.raises(ConfigError, match=f"{key}: "):
        built(name, **{key: value})
