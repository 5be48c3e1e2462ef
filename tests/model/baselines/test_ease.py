"""EASE against the closed form."""

import numpy as np
import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.baselines import ease


def test_ease_is_the_closed_form(few, scores):
    model, matrix = few("EASE", reg_weight=3.0)
    precision = np.linalg.inv(matrix.T @ matrix + 3 * np.eye(matrix.shape[1]))
    weights = np.eye(len(precision)) - precision / np.diag(precision)
    np.testing.assert_allclose(model.item_similarity.numpy(), weights, atol=1e-5)
    np.testing.assert_allclose(scores(model, [3, 1, 12]), matrix[[3, 1, 12]] @ weights, atol=1e-5)
    assert model.inference_parameters() == weights.size


@pytest.mark.parametrize("strength", [0.0, -1.0])
def test_ease_without_a_solution(few, strength):
    with pytest.raises(ConfigError, match="reg_weight: EASE has no solution with .* above 0"):
        few("EASE", reg_weight=strength)


def test_nothing_is_computed_where_a_checkpoint_brings_it(few, scores, monkeypatch):
    monkeypatch.setattr(ease, "closed_form", None)
    model, _ = few("EASE", Weights.FOLLOW)
    assert not scores(model, [3]).any()
