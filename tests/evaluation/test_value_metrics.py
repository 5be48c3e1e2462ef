"""AUC, LogLoss and GAUC of labelled rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector, Evaluator
from sklearn.metrics import log_loss, roc_auc_score

from recbole_hllm.evaluation.value_metrics import ValueCollector, ValueEvaluator, grouped_auc


def config_of(*metrics):
    keys = {
        "metrics": list(metrics), "topk": [10], "metric_decimal_place": 6, "eval_args": {"mode": {}}, "device": "cpu",
        "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LABEL_FIELD": "label",
    }  # fmt: skip
    return keys


def evaluated(config, users, labels, scores, cuts=()):
    """Result and kept scores of rows collected in batches that end at ``cuts``."""
    collector, evaluator = ValueCollector(config), ValueEvaluator(config)
    users, labels, scores = torch.tensor(users), torch.tensor(labels).float(), torch.tensor(scores)
    for part in torch.arange(len(users)).tensor_split(list(cuts)):
        rows = Interaction({"user_id": users[part], "item_id": users[part] + 100, "label": labels[part]})
        collector.eval_batch_collect(scores[part], rows, None, None)
    return SimpleNamespace(result=evaluator.evaluate(collector.get_data_struct()), kept=collector.take_scores(),
                           collector=collector)  # fmt: skip


@pytest.mark.parametrize(
    "users, labels, scores, expected",
    [
        ([1, 1], [1, 0], [0.9, 0.1], 1.0),
        ([1, 1], [1, 0], [0.1, 0.9], 0.0),
        ([1, 1], [1, 0], [0.5, 0.5], 0.5),
        # user 1: 3 rows, 1 of 2 pairs right; user 2: 2 rows, right; user 3 has one class and does not count
        ([1, 1, 1, 2, 2, 3, 3], [1, 0, 0, 0, 1, 1, 1], [0.5, 0.9, 0.1, 0.2, 0.3, 0.0, 1.0], (3 * 0.5 + 2 * 1) / 5),
        # users mixed, a tie of one of two pairs
        ([2, 1, 2, 1, 1], [1, 0, 0, 1, 0], [0.7, 0.4, 0.8, 0.4, 0.1], (2 * 0 + 3 * 0.75) / 5),
    ],
)
def test_gauc_of_cases_worked_out_by_hand(users, labels, scores, expected):
    assert grouped_auc(np.array(users), np.array(labels), np.array(scores)) == pytest.approx(expected, abs=1e-12)


def test_gauc_without_a_user_of_both_classes_is_no_number():
    assert np.isnan(grouped_auc(np.array([1, 1, 2]), np.array([1, 1, 0]), np.array([0.1, 0.2, 0.3])))


ROWS = st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 4)), min_size=1, max_size=40)


@given(ROWS)
def test_gauc_is_the_mean_of_scikit_learns_auc_weighted_by_rows(rows):
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    total, weight = 0.0, 0
    for user in set(users.tolist()):
        own = users == user
        if 0 < labels[own].sum() < own.sum():
            total += own.sum() * roc_auc_score(labels[own], scores[own])
            weight += own.sum()
    value = grouped_auc(users, labels, scores)
    assert np.isnan(value) if weight == 0 else value == pytest.approx(total / weight, abs=1e-12)


USERS, LABELS = [1, 1, 2, 2, 2, 3], [1, 0, 0, 1, 1, 1]
SCORES = [0.8, 0.3, 0.6, 0.7, 0.2, 0.9]


def test_all_metrics_of_one_evaluation():
    seen = evaluated(config_of("AUC", "LogLoss", "GAUC"), USERS, LABELS, SCORES, cuts=(1, 4))
    assert list(seen.result) == ["auc", "logloss", "gauc"]
    assert seen.result["auc"] == pytest.approx(roc_auc_score(LABELS, SCORES), abs=1e-6)
    assert seen.result["logloss"] == pytest.approx(log_loss(LABELS, SCORES), abs=1e-6)
    assert seen.result["gauc"] == pytest.approx((2 * 1 + 3 * 0.5) / 5, abs=1e-6)


def test_auc_and_logloss_are_recboles():
    config = config_of("AUC", "LogLoss", "RMSE", "MAE")
    stock = Collector(config)
    stock.eval_batch_collect(torch.tensor(SCORES), {"label": torch.tensor(LABELS).float()}, None, None)
    assert evaluated(config, USERS, LABELS, SCORES).result == Evaluator(config).evaluate(stock.get_data_struct())


def test_scores_are_kept_row_by_row_and_handed_over_once():
    seen = evaluated(config_of("AUC"), USERS, LABELS, SCORES, cuts=(2,))
    assert seen.kept["user"].tolist() == USERS and seen.kept["item"].tolist() == [user + 100 for user in USERS]
    assert seen.kept["label"].tolist() == LABELS
    np.testing.assert_array_equal(seen.kept["score"], np.float32(SCORES))
    assert seen.collector.take_scores() is None


def test_recboles_own_gauc_is_left_alone():
    from recbole.evaluator.register import metric_types, metrics_dict
    from recbole.utils import EvaluatorType

    assert metrics_dict["gauc"].__module__ == "recbole.evaluator.metrics"
    assert metric_types["gauc"] == EvaluatorType.RANKING
