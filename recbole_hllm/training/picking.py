"""Numbers of a model that are picked by the validation: the value of each option, counted in one pass over its rows."""

from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.evaluation.columns import is_masked, plain_name
from recbole_hllm.evaluation.evaluator import MetricEvaluator
from recbole_hllm.evaluation.ranking import ScoreTable, rank
from recbole_hllm.processes import current

# Decimal places of a value: options that differ by less are equal.
_PLACES = 12


class Values:
    """The mean of ``valid_metric`` under each option, in each group of rows and over all of them.

    Only sums are kept, so that it makes no difference how many rows and options there are.

    Args:
        config: the run's Config.
        groups, options: how many there are.
    """

    def __init__(self, config: Any, groups: int, options: int) -> None:
        metric = RunKeys.of(config).valid_metric.lower()
        name, _, self.k = plain_name(metric).partition("@")
        self.masks = config["mask_history"] != "both" or is_masked(metric)
        asked = {"metrics": [name], "topk": [int(self.k)], "metric_decimal_place": _PLACES}
        self.evaluator = MetricEvaluator(config.with_values(asked), labelled=False)
        self.sums, self.rows = np.zeros((groups, options)), np.zeros(groups, np.int64)

    def add_rows(self, groups: np.ndarray) -> None:
        """Counts the (B,) rows of a batch."""
        self.rows += np.bincount(groups, minlength=len(self.rows))

    def add(self, option: int, scores: Tensor, groups: np.ndarray, batch: Any) -> None:
        """Adds what an option makes of a batch.

        Args:
            scores: (B, N), -inf is no candidate.
            groups: (B,) of its rows.
            batch: of an EvalLoader.
        """
        hits = self._hits(scores, *batch[1:])
        for group in np.unique(groups):
            those = hits[torch.from_numpy(groups == group)]
            found = DataStruct()
            found.set("rec.topk", those)
            (value,) = self.evaluator.evaluate(found).values()
            self.sums[group, option] += value * len(those)

    def _hits(self, scores: Tensor, masked: Any, row_of: Tensor, targets: Tensor) -> Tensor:
        """(B, k + 1) at which places there are targets, and how many a row has, as RecBole's metrics read them."""
        n_rows, n_items, k = *scores.shape, int(self.k)
        pairs = torch.unique(row_of.to(scores.device) * n_items + targets.to(scores.device))
        rows, masked = pairs // n_items, masked if self.masks else None
        ranking = rank(ScoreTable(scores), rows, pairs % n_items, masked)
        hit = ranking.candidates & (ranking.ranks <= k)
        hits = torch.zeros(n_rows, k + 1, dtype=torch.int32, device=scores.device)
        hits[rows[hit], ranking.ranks[hit] - 1] = 1
        hits[:, k] = torch.bincount(rows, minlength=n_rows)
        return hits.cpu()

    def of_all_processes(self) -> tuple[np.ndarray, np.ndarray]:
        """(groups + 1, options) means, the last line over all rows, and (groups,) numbers of rows."""
        of_all = current().gather_lists([self.sums, self.rows])
        sums, rows = (np.sum(theirs, axis=0) for theirs in zip(*of_all, strict=True))
        sums = np.concatenate([sums, sums.sum(axis=0, keepdims=True)])
        return sums / np.maximum([*rows, rows.sum()], 1)[:, None], rows
