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


def test_a_history_is_scored_by_weights_of_the_training(few, tested):
    _, matrix = few("EASE", reg_weight=3.0)
    precision = np.linalg.inv(matrix.T @ matrix + 3 * np.eye(matrix.shape[1]))
    weights = np.eye(len(precision)) - precision / np.diag(precision)
    made = tested("EASE", reg_weight=3.0, score_from="history")
    expected = made.had @ weights
    np.testing.assert_allclose(made.model.full_sort_predict(made.rows).numpy(), expected, atol=1e-5)
    own = made.rows["item_id"].numpy()
    np.testing.assert_allclose(made.model.predict(made.rows).numpy(), expected[range(12), own], atol=1e-5)
    by_default = tested("EASE", reg_weight=3.0)
    training = matrix[by_default.rows["user_id"]] @ weights
    np.testing.assert_allclose(by_default.model.full_sort_predict(by_default.rows).numpy(), training, atol=1e-5)
    assert abs(training - expected).max() > 0.1


def test_users_left_out_of_the_training_have_a_history(tested):
    """Their rows in training are empty, and an item before the target is all that is needed."""
    keys = {"reg_weight": 3.0, "train_min_items": 4}
    alone, history = tested("EASE", **keys), tested("EASE", score_from="history", **keys)
    few_items = history.had.sum(1) < 5  # one of them is the validation's
    empty = (alone.model.full_sort_predict(alone.rows) == 0).all(1).numpy()
    assert empty.tolist() == few_items.tolist() and 0 < few_items.sum() < 12
    assert (history.model.full_sort_predict(history.rows) != 0).any(1).all()


def test_one_of_two_words(few_config):
    with pytest.raises(ConfigError, match="score_from: 'histories' is not one of training, history; did you mean"):
        few_config("EASE", score_from="histories")
