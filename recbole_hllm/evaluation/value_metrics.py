"""Metrics of labelled rows: RecBole's AUC, LogLoss, MAE and RMSE over all of them, and means of users' own AUC."""

import logging

import numpy as np
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.base_metric import LossMetric
from recbole.evaluator.collector import Collector, DataStruct
from recbole.evaluator.register import metrics_dict

from recbole_hllm.data.metrics import USER_METRICS

_USERS = "data.users"
# Whether users count by their rows; ``USER_METRICS`` names each.
_WEIGHTED = {"gauc": True, "wuauc": True, "uauc": False}


def user_aucs(users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC inside each user who has both labels.

    It is the share of a user's (positive, negative) pairs in which the positive scores higher; equal scores count half.

    Args:
        users: (R,) whose row it is.
        labels: (R,) 0 or 1.
        scores: (R,) finite.

    Returns:
        (U,) AUC of each such user, ordered by user, and (U,) how many rows the user has.
    """
    users = np.unique(users, return_inverse=True)[1]
    order = np.lexsort((scores, users))
    users, labels, scores = users[order], labels[order] > 0, scores[order]
    rows = np.bincount(users)
    positives = np.bincount(users, weights=labels)
    first = np.concatenate([[0], np.cumsum(rows)[:-1]]).astype(np.int64)
    # Rows of equal score share the mean of their places, counted from 1 inside each user.
    places = np.arange(len(users)) - first[users] + 1
    new = np.concatenate([[True], (users[1:] != users[:-1]) | (scores[1:] != scores[:-1])])[: len(users)]
    ties = np.cumsum(new) - 1
    ranks = (np.bincount(ties, weights=places) / np.bincount(ties))[ties]
    pairs = positives * (rows - positives)
    won = np.bincount(users, weights=ranks * labels) - positives * (positives + 1) / 2
    both = pairs > 0
    return won[both] / pairs[both], rows[both]


def grouped_auc(users: np.ndarray, labels: np.ndarray, scores: np.ndarray, weighted: bool = True) -> float:
    """Mean AUC of the users who have both labels.

    Args:
        users, labels, scores: (R,) as in ``user_aucs``.
        weighted: each user counts by its rows: GAUC (Zhu et al. 2017, as in DIN's paper), which others call WUAUC;
            False: all users count alike, UAUC (LEARN, section 3.6, has both).

    Returns:
        A number in 0..1; NaN where no user has both labels.
    """
    aucs, rows = user_aucs(users, labels, scores)
    if len(aucs) == 0:
        return float("nan")
    return float(np.average(aucs, weights=rows if weighted else None))


def value_metrics(metrics, users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """Metrics of any labelled rows, not rounded.

    Args:
        metrics: names out of ``data.metrics.VALUE_METRICS``, in small letters.
        users, labels, scores: (R,) as in ``user_aucs``.

    Returns:
        The value of each; None where it is none: nothing of no rows, no AUC of one class, no mean over users of whom
        none has both labels.
    """
    values = dict.fromkeys(metrics)
    if len(labels) == 0:
        return values
    both = labels.min() < labels.max()
    for name in values:
        if name in USER_METRICS:
            value = grouped_auc(users, labels, scores, _WEIGHTED[name])
            values[name] = None if np.isnan(value) else value
        elif name != "auc" or both:
            metric = metrics_dict[name]({"metric_decimal_place": None})
            values[name] = float(metric.metric_info(scores, labels))
    return values


class UserMetric(LossMetric):
    """``grouped_auc`` of an evaluation, as one of ``USER_METRICS``.

    RecBole knows a metric named GAUC too, which reads rankings of the whole catalogue.
    """

    def __init__(self, config, name: str):
        super().__init__(config)
        self.name = name

    def calculate_metric(self, dataobject):
        """Returns ``{name: value}``, rounded as RecBole's metrics are."""
        scores, labels = self.used_info(dataobject)
        value = grouped_auc(dataobject.get(_USERS).numpy(), labels, scores, _WEIGHTED[self.name])
        if np.isnan(value):
            logging.getLogger().warning(f"{self.name.upper()}: no user has rows of both labels")
        return {self.name: round(value, self.decimal_place)}


class ValueEvaluator(Evaluator):
    """RecBole's Evaluator, with the metrics of users."""

    def __init__(self, config):
        super().__init__(_without_user_metrics(config))
        self.config, self.metrics = config, [metric.lower() for metric in config["metrics"]]
        own = {name: UserMetric(config, name) for name in self.metrics if name in USER_METRICS}
        self.metric_class = {**self.metric_class, **own}


class ValueCollector(Collector):
    """Keeps user, item, label and score of every labelled row of an evaluation."""

    def __init__(self, config):
        super().__init__(_without_user_metrics(config))
        names = ("USER_ID_FIELD", "ITEM_ID_FIELD", "LABEL_FIELD")
        self.user_field, self.item_field, self.label_field = (config[name] for name in names)
        self._batches, self._scored = [], None

    def eval_batch_collect(self, scores_tensor, interaction, positive_u, positive_i):
        """Collects one batch: (rows,) scores and the rows they belong to; the positives are the labels' matter."""
        fields = (self.user_field, self.item_field, self.label_field)
        self._batches.append([interaction[field].cpu() for field in fields] + [scores_tensor.detach().float().cpu()])

    def get_data_struct(self) -> DataStruct:
        """Ends an evaluation pass: what ``ValueEvaluator`` needs, tensors on the CPU."""
        users, items, labels, scores = map(torch.cat, zip(*self._batches, strict=True))
        self._batches = []
        arrays = zip(("user", "item", "label", "score"), (users, items, labels.to(torch.int8), scores), strict=True)
        self._scored = {name: values.numpy() for name, values in arrays}
        collected = DataStruct()
        for name, values in ((_USERS, users), ("data.label", labels), ("rec.score", scores)):
            collected.set(name, values)
        return collected

    def take_scores(self) -> dict[str, np.ndarray] | None:
        """``user``, ``item``, ``label`` and ``score`` (R,) of the pass that ended last, in its order, once."""
        scored, self._scored = self._scored, None
        return scored


def _without_user_metrics(config) -> dict:
    """What RecBole's classes read of a config, without the metrics that they do not know or know another one by."""
    keys = ("topk", "metric_decimal_place", "eval_args", "device", "USER_ID_FIELD", "ITEM_ID_FIELD")
    metrics = [metric for metric in config["metrics"] if metric.lower() not in USER_METRICS]
    return {**{key: config[key] for key in keys}, "metrics": metrics}
