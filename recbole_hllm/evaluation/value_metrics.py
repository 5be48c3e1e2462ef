"""Metrics of labelled rows: RecBole's AUC, LogLoss, MAE and RMSE over all of them, and means of users' own AUC."""

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.evaluator.base_metric import LossMetric
from recbole.evaluator.collector import Collector, DataStruct
from torch import Tensor

from recbole_hllm.evaluation.metrics import find_metric
from recbole_hllm.processes import current

_USERS = "data.users"
_COLUMNS = 4  # user, item, label and score


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


def value_metrics(
    metrics: Sequence[str], users: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> dict[str, float | None]:
    """Metrics of any labelled rows, not rounded.

    Args:
        metrics: names of metrics of labelled rows, in small letters.
        users, labels, scores: (R,) as in ``user_aucs``.

    Returns:
        The value of each; None where it is none: nothing of no rows, no AUC of one class, no mean over users of whom
        none has both labels.
    """
    values: dict[str, float | None] = dict.fromkeys(metrics)
    if len(labels) == 0:
        return values
    both = labels.min() < labels.max()
    for name in values:
        kind = find_metric(name, labelled=True)
        assert kind is not None, "check_metrics has asked for it before"
        metric = kind({"metric_decimal_place": None})
        if isinstance(metric, UserMetric):
            value = grouped_auc(users, labels, scores, metric.weighted)
            values[name] = None if np.isnan(value) else value
        elif name != "auc" or both:
            values[name] = float(metric.metric_info(scores, labels))
    return values


class UserMetric(LossMetric):
    """``grouped_auc`` of an evaluation."""

    metric_need = [*LossMetric.metric_need, _USERS]
    weighted: bool

    def calculate_metric(self, dataobject: Any) -> dict[str, Any]:
        """Returns ``{name: value}``, rounded as RecBole's metrics are."""
        scores, labels = self.used_info(dataobject)
        name, value = type(self).__name__, grouped_auc(dataobject.get(_USERS).numpy(), labels, scores, self.weighted)
        if np.isnan(value):
            logging.getLogger().warning(f"{name}: no user has rows of both labels")
        return {name.lower(): round(value, self.decimal_place)}


class GAUC(UserMetric):
    """Users count by their rows. RecBole's of this name reads rankings of the whole catalogue."""

    weighted = True


class WUAUC(GAUC):
    """Another name of it."""


class UAUC(UserMetric):
    """All users count alike."""

    weighted = False


class ValueCollector(Collector):
    """Keeps user, item, label and score of every labelled row of an evaluation."""

    def __init__(self, config: Any) -> None:
        super().__init__({"metrics": [], **{key: config[key] for key in ("topk", "eval_args", "device")}})
        names = ("USER_ID_FIELD", "ITEM_ID_FIELD", "LABEL_FIELD")
        self.user_field, self.item_field, self.label_field = (config[name] for name in names)
        self._batches: list[list[Tensor]] = []
        self._scored: dict[str, np.ndarray] | None = None

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Interaction, positive_u: Any, positive_i: Any
    ) -> None:
        """Collects one batch: (rows,) scores and the rows they belong to; the positives are the labels' matter."""
        fields = (self.user_field, self.item_field, self.label_field)
        self._batches.append([interaction[field].cpu() for field in fields] + [scores_tensor.detach().float().cpu()])

    def get_data_struct(self) -> DataStruct:
        """Ends an evaluation pass: what ``MetricEvaluator`` needs, of the batches of all processes in their order;
        tensors on the CPU."""
        columns = ([batch[place].numpy() for batch in self._batches] for place in range(_COLUMNS))
        of_all = (chain(*current().gather_lists(batches)) for batches in columns)
        users, items, labels, scores = (torch.from_numpy(np.concatenate(list(batches))) for batches in of_all)
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
