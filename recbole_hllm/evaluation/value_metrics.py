"""Metrics of labelled rows: RecBole's AUC, LogLoss, MAE and RMSE over all rows, and GAUC, the AUC inside each user."""

import logging

import numpy as np
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.base_metric import LossMetric
from recbole.evaluator.collector import Collector, DataStruct

_USERS = "data.users"


def grouped_auc(users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean AUC of the users who have both labels, each weighted by its rows (Zhu et al. 2017, as in DIN's paper).

    A user's AUC is the share of its (positive, negative) pairs in which the positive scores higher; equal scores
    count half.

    Args:
        users: (R,) whose row it is.
        labels: (R,) 0 or 1.
        scores: (R,) finite.

    Returns:
        A number in 0..1; NaN where no user has both labels.
    """
    users = np.unique(users, return_inverse=True)[1]
    order = np.lexsort((scores, users))
    users, labels, scores = users[order], labels[order] > 0, scores[order]
    rows = np.bincount(users)
    positives = np.bincount(users, weights=labels)
    first = np.concatenate([[0], np.cumsum(rows)[:-1]])
    # Rows of equal score share the mean of their places, counted from 1 inside each user.
    places = np.arange(len(users)) - first[users] + 1
    new = np.concatenate([[True], (users[1:] != users[:-1]) | (scores[1:] != scores[:-1])])[: len(users)]
    ties = np.cumsum(new) - 1
    ranks = (np.bincount(ties, weights=places) / np.bincount(ties))[ties]
    pairs = positives * (rows - positives)
    won = np.bincount(users, weights=ranks * labels) - positives * (positives + 1) / 2
    both = pairs > 0
    return float(np.average(won[both] / pairs[both], weights=rows[both])) if both.any() else float("nan")


class GAUC(LossMetric):
    """``grouped_auc`` of an evaluation. RecBole's metric of this name reads rankings of the whole catalogue."""

    def calculate_metric(self, dataobject):
        """Returns ``{"gauc": value}``, rounded as RecBole's metrics are."""
        scores, labels = self.used_info(dataobject)
        value = grouped_auc(dataobject.get(_USERS).numpy(), labels, scores)
        if np.isnan(value):
            logging.getLogger().warning("GAUC: no user has rows of both labels")
        return {"gauc": round(value, self.decimal_place)}


class ValueEvaluator(Evaluator):
    """RecBole's Evaluator, with GAUC of labelled rows."""

    def __init__(self, config):
        super().__init__(config)
        if "gauc" in self.metric_class:
            self.metric_class["gauc"] = GAUC(config)


class ValueCollector(Collector):
    """Keeps user, item, label and score of every labelled row of an evaluation."""

    def __init__(self, config):
        super().__init__(config)
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
