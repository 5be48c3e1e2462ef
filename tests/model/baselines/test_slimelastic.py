"""SLIMElastic against an elastic net for each item."""

import numpy as np
import pytest
from sklearn.linear_model import ElasticNet

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.baselines import slimelastic


@pytest.mark.parametrize("hide", [True, False])
def test_slim_is_an_elastic_net_for_each_item(few, scores, hide):
    model, matrix = few("SLIMElastic", alpha=0.05, l1_ratio=0.1, hide_item=hide)
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


@pytest.mark.parametrize("key, value", [("alpha", -1.0), ("l1_ratio", 2.0)])
def test_values_that_cannot_be_used(few, key, value):
    with pytest.raises(ConfigError, match=f"{key}: {value}"):
        few("SLIMElastic", **{key: value})


def test_nothing_is_computed_where_a_checkpoint_brings_it(few, scores, monkeypatch):
    monkeypatch.setattr(slimelastic, "ElasticNet", None)
    model, _ = few("SLIMElastic", Weights.FOLLOW)
    assert not scores(model, [3]).any()


def test_a_history_is_scored_by_weights_of_the_training(few, tested):
    keys = {"alpha": 0.05, "l1_ratio": 0.1}
    made, (model, _) = tested("SLIMElastic", score_from="history", **keys), few("SLIMElastic", **keys)
    expected = made.had @ model.weights().toarray()
    np.testing.assert_allclose(made.model.full_sort_predict(made.rows).numpy(), expected, atol=1e-5)
