"""What is recommended at all: RecBole's metrics of it with RecBole's values, and the same by their formulas.

RecBole's ItemCoverage and GiniIndex count the padding item 0 among the items that could be recommended, and its
ShannonEntropy is the entropy divided by the number of distinct items that are. These names keep these values.
"""

from collections import Counter
from typing import Any

import numpy as np
from recbole.evaluator.metrics import GiniIndex, ItemCoverage, ShannonEntropy


class Coverage(ItemCoverage):
    """Share of the catalogue, padding not counted, that stands in somebody's list."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Returns ``coverage@k`` for each k, in 0..1."""
        items, n_items = self.used_info(dataobject)
        values = {k: self.get_coverage(items[:, :k], n_items - 1) for k in self.topk}
        return {f"coverage@{k}": round(value, self.decimal_place) for k, value in values.items()}


class Gini(GiniIndex):
    """Inequality of how often each item of the catalogue, padding not counted, stands in the lists."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Returns ``gini@k`` for each k: 0 where all items stand there equally often, nearly 1 where one alone does."""
        items, n_items = self.used_info(dataobject)
        values = {k: self.get_gini(items[:, :k], n_items - 1) for k in self.topk}
        return {f"gini@{k}": round(float(value), self.decimal_place) for k, value in values.items()}


class Entropy(ShannonEntropy):
    """Entropy of the places of all lists over the items that stand there."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Returns ``entropy@k`` for each k, in nats: log n where n items stand there equally often."""
        items = self.used_info(dataobject)
        values = {k: _entropy(items[:, :k]) for k in self.topk}
        return {f"entropy@{k}": round(value, self.decimal_place) for k, value in values.items()}


def _entropy(items: np.ndarray) -> float:
    counts = np.unique(items, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def training_counter(counts: np.ndarray) -> Counter[Any]:
    """How often each item occurs in the training interactions, as RecBole's metrics of popularity read it.

    Args:
        counts: (n_items,) of each item; those that do not occur are none that training knows.
    """
    known = np.flatnonzero(counts)
    return Counter(dict(zip(known.tolist(), counts[known].tolist(), strict=True)))
