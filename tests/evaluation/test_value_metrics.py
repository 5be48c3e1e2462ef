"""AUC, LogLoss, and means of users' AUC of labelled rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector, Evaluator
from sklearn.metrics import log_loss, roc_auc_score

from recbole_hllm.evaluation.evaluator import MetricEvaluator
from recbole_hllm.evaluation.value_metrics import ValueCollector, grouped_auc, user_aucs, value_metrics


def config_of(*metrics):
    keys = {
        "metrics": list(metrics), "topk": [10], "metric_decimal_place": 6, "eval_args": {"mode": {}}, "device": "cpu",
        "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LABEL_FIELD": "label",
    }  # fmt: skip
    return keys


def evaluated(config, users, labels, scores, cuts=()):
    """Result and kept scores of rows collected in batches that end at ``cuts``."""
    collector, evaluator = ValueCollector(config), MetricEvaluator(config, labelled=True)
    users, labels, scores = torch.tensor(users), torch.tensor(labels).float(), torch.tensor(scores)
    for part in torch.arange(len(users)).tensor_split(list(cuts)):
        rows = Interaction({"user_id": users[part], "item_id": users[part] + 100, "label": labels[part]})
        collector.eval_batch_collect(scores[part], rows, None, None)
    return SimpleNamespace(result=evaluator.evaluate(collector.get_data_struct()), kept=collector.take_scores(),
                           collector=collector)  # fmt: skip


@pytest.mark.parametrize(
    "users, labels, scores, by_rows, alike",
    [
        ([1, 1], [1, 0], [0.9, 0.1], 1.0, 1.0),
        ([1, 1], [1, 0], [0.1, 0.9], 0.0, 0.0),
        ([1, 1], [1, 0], [0.5, 0.5], 0.5, 0.5),
        # user 1: 3 rows, 1 of 2 pairs right; user 2: 2 rows, right; user 3 has one class and does not count
        ([1, 1, 1, 2, 2, 3, 3], [1, 0, 0, 0, 1, 1, 1], [0.5, 0.9, 0.1, 0.2, 0.3, 0.0, 1.0], (3 * 0.5 + 2) / 5, 1.5 / 2),
        # users mixed, a tie of one of two pairs
        ([2, 1, 2, 1, 1], [1, 0, 0, 1, 0], [0.7, 0.4, 0.8, 0.4, 0.1], (2 * 0 + 3 * 0.75) / 5, 0.75 / 2),
        # users 1 and 2 with one class each are skipped, whatever their number of rows
        ([1, 1, 1, 2, 3, 3], [0, 0, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.1, 0.6, 0.5], 1.0, 1.0),
        # 6 rows with 8 pairs, of which 5 and a tie; 2 rows, wrong; 3 rows, right
        (
            [4] * 6 + [5] * 2 + [6] * 3, [1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0],
            [0.9, 0.1, 0.2, 0.3, 0.3, 0.4, 0.1, 0.2, 0.8, 0.7, 0.6], (6 * 6.5 / 8 + 3) / 11, (6.5 / 8 + 0 + 1) / 3,
        ),
    ],
)  # fmt: skip
def test_means_of_users_worked_out_by_hand(users, labels, scores, by_rows, alike):
    rows = np.array(users), np.array(labels), np.array(scores)
    assert grouped_auc(*rows) == pytest.approx(by_rows, abs=1e-12)
    assert grouped_auc(*rows, weighted=False) == pytest.approx(alike, abs=1e-12)
    named = value_metrics(["gauc", "wuauc", "uauc"], *rows)
    assert named == pytest.approx({"gauc": by_rows, "wuauc": by_rows, "uauc": alike}, abs=1e-12)


def test_the_auc_of_each_user():
    aucs, rows = user_aucs(np.array([7, 3, 3, 7, 7, 5]), np.array([1, 1, 0, 0, 0, 1]), np.array([5, 1, 2, 5, 4, 0]))
    assert aucs.tolist() == [0.0, 0.75] and rows.tolist() == [2, 3], "of users 3 and 7"


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("rows", [([1, 1, 2], [1, 1, 0], [0.1, 0.2, 0.3]), ([], [], [])])
def test_no_user_of_both_classes_is_no_number(rows, weighted):
    assert np.isnan(grouped_auc(*(np.array(column, dtype=float) for column in rows), weighted=weighted))


@pytest.mark.parametrize("name", ["GAUC", "UAUC", "WUAUC"])
def test_no_user_of_both_classes_is_said(caplog, name):
    seen = evaluated(config_of("AUC", name), [1, 1, 2], [1, 1, 0], [0.3, 0.2, 0.1])
    assert np.isnan(seen.result[name.lower()]) and seen.result["auc"] == 1.0
    assert caplog.messages == [f"{name}: no user has rows of both labels"]


ROWS = st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 4)), min_size=1, max_size=40)


@given(ROWS)
def test_users_have_scikit_learns_auc(rows):
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    aucs, weights = [], []
    for user in set(users.tolist()):
        own = users == user
        if 0 < labels[own].sum() < own.sum():
            aucs.append(roc_auc_score(labels[own], scores[own]))
            weights.append(own.sum())
    for weighted in (True, False):
        value = grouped_auc(users, labels, scores, weighted)
        mean = np.average(aucs, weights=weights if weighted else None) if aucs else None
        assert np.isnan(value) if mean is None else value == pytest.approx(mean, abs=1e-12)


@given(ROWS)
def test_any_rows_have_scikit_learns_metrics_or_none(rows):
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    scores = ((scores + 1) / 6).astype(np.float32)
    values = value_metrics(["logloss", "auc", "mae"], users, labels.astype(np.int8), scores)
    both = labels.min() < labels.max()
    assert values["auc"] == (pytest.approx(roc_auc_score(labels, scores), abs=1e-12) if both else None)
    assert values["mae"] == pytest.approx(np.abs(labels - scores).mean(), abs=1e-6)
    right = np.where(labels, scores.astype(np.float64), 1 - scores.astype(np.float64))
    assert values["logloss"] == pytest.approx(-np.log(right).mean(), abs=1e-12)
    assert value_metrics(["logloss", "auc", "gauc"], users[:0], labels[:0], scores[:0]) == {
        "logloss": None, "auc": None, "gauc": None
    }  # fmt: skip


USERS, LABELS = [1, 1, 2, 2, 2, 3], [1, 0, 0, 1, 1, 1]
SCORES = [0.8, 0.3, 0.6, 0.7, 0.2, 0.9]


def test_all_metrics_of_one_evaluation():
    seen = evaluated(config_of("AUC", "UAUC", "LogLoss", "GAUC", "WUAUC"), USERS, LABELS, SCORES, cuts=(1, 4))
    assert list(seen.result) == ["auc", "uauc", "logloss", "gauc", "wuauc"]
    assert seen.result["uauc"] == pytest.approx((1 + 0.5) / 2, abs=1e-6)
    assert seen.result["wuauc"] == seen.result["gauc"]
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
