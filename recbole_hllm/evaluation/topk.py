"""Top-k lists, hits and ranks out of a score matrix, without a label matrix of the same size."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector, DataStruct
from torch import Tensor

from recbole_hllm.evaluation.diversity import training_counter
from recbole_hllm.evaluation.metrics import check_topk, needed_by

# Score elements copied at a time while ranking the targets outside the top-k list (16 MB of float32).
_BLOCK_ELEMENTS = 1 << 22
_PER_PASS = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")


class TopKCollector(Collector):
    """RecBole's ``Collector`` without the (users x items) label matrix, keeping the rank of each target.

    RecBole's Evaluator gets the values it gets from the stock collector: top-k ids come from one
    ``torch.topk`` over the same scores, so that ties break alike, and hits are found by comparing these few
    ids with the positives. GAUC, which is defined over whole sorted rows, is collected by RecBole's own code.
    """

    data_struct: DataStruct

    def __init__(self, config: Any) -> None:
        super().__init__({"metrics": [], **{key: config[key] for key in ("topk", "eval_args", "device")}})
        for need in needed_by(config["metrics"], labelled=False):
            setattr(self.register, need, True)
        self.config, self.k = config, max(self.topk)
        self._batches: dict[str, list[torch.Tensor]] = {}
        self._rank_batches: list[dict[str, np.ndarray]] = []
        self._ranks: list[dict[str, np.ndarray]] = []

    def data_collect(self, train_data: Any) -> None:
        """What metrics need to know of the catalogue, and of the training interactions of the whole table.

        RecBole counts a model's own training rows, which are other ones for each kind of model.

        Args:
            train_data: a loader of the training part of a SequenceDataset.

        Raises:
            ConfigError: the largest ``topk`` exceeds the number of items.
        """
        dataset = train_data._dataset
        check_topk(self.config, dataset.item_num - 1)
        if self.register.need("data.num_items"):  # RecBole's number, with the padding item
            self.data_struct.set("data.num_items", dataset.item_num)
        if self.register.need("data.count_items"):
            self.data_struct.set("data.count_items", training_counter(dataset.whole_counts()))

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Interaction, positive_u: Any, positive_i: Any
    ) -> None:
        """Collects one batch.

        Args:
            scores_tensor: (rows, items) scores, -inf where an item is no candidate.
            interaction: the batch; it names the user of each row.
            positive_u: (positives,) row of each positive item.
            positive_i: (positives,) its item id. A row may have several positives.
        """
        n_rows, n_items = scores_tensor.shape
        topk_idx = torch.topk(scores_tensor, self.k, dim=-1).indices
        # One sorted key per distinct (row, item): RecBole's label matrix counts a repeated positive once.
        device = scores_tensor.device
        positives = torch.unique(positive_u.to(device) * n_items + positive_i.to(device))
        rows, items = positives // n_items, positives % n_items
        hits, positions = _find_hits(topk_idx, positives, n_items)

        if self.register.need("rec.meanrank"):
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        else:
            if self.register.need("rec.items"):
                self._keep("rec.items", topk_idx)
            if self.register.need("rec.topk"):
                counts = torch.bincount(rows, minlength=n_rows)
                self._keep("rec.topk", torch.cat((hits, counts[:, None]), dim=1).to(torch.int32))

        users = _user_of_each_row(interaction[self.config["USER_ID_FIELD"]], n_rows)
        ranks = _ranks(scores_tensor, rows, items, positions, self.k)
        batch = {"user": users[rows.to(users.device)], "target": items, "rank": ranks}
        self._rank_batches.append({name: values.cpu().numpy() for name, values in batch.items()})

    def _keep(self, name: str, batch: torch.Tensor) -> None:
        self._batches.setdefault(name, []).append(batch.cpu())

    def get_data_struct(self) -> DataStruct:
        """Ends an evaluation pass: what RecBole's Evaluator needs, tensors on the CPU.

        (The stock method calls ``.cpu()`` on the item count and the item counter too, and fails for every
        metric that needs them: item coverage, Gini index, average popularity, tail percentage.)
        """
        for name, batches in self._batches.items():
            self.data_struct.set(name, torch.cat(batches))
        collected = self.data_struct
        returned, self.data_struct = DataStruct(), DataStruct()
        for name, value in collected._data_dict.items():
            returned.set(name, value.cpu() if isinstance(value, torch.Tensor) else value)
            if name not in _PER_PASS:
                self.data_struct.set(name, value)
        self._batches = {}
        self._ranks, self._rank_batches = self._rank_batches, []
        return returned

    def take_ranks(self) -> dict[str, np.ndarray]:
        """The ranks of the evaluation pass that ended last, handed over once.

        Returns:
            ``user``, ``target`` and ``rank``, each (targets,) int64, in evaluation order; a row's several
            targets in order of their id. 1 is the best rank. A target in the top-k list ranks by its place
            there, any other one by the number of scores above its own, but after the list. So
            ``rank <= k`` is what RecBole counts as a hit at every k of ``topk``. The exception is a target
            that was masked (score -inf): it ranks just after the row's candidates, by definition.
        """
        batches, self._ranks = self._ranks, []
        empty = np.empty(0, dtype=np.int64)
        return {
            name: np.concatenate([empty, *(batch[name] for batch in batches)])
            for name in ("user", "target", "rank")
        }


def _find_hits(
    topk_idx: torch.Tensor, positives: torch.Tensor, n_items: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Looks the listed items up among the positives.

    Args:
        topk_idx: (rows, k) listed item ids, best first.
        positives: (positives,) sorted distinct ``row * n_items + item``.

    Returns:
        (rows, k) bool, whether the listed item is a positive; (positives,) its place from 1, 0 if absent.
    """
    n_rows, k = topk_idx.shape
    listed = topk_idx + torch.arange(n_rows, device=topk_idx.device)[:, None] * n_items
    index = torch.searchsorted(positives, listed).clamp_(max=len(positives) - 1)
    hits = positives[index] == listed
    places = torch.arange(1, k + 1, device=topk_idx.device).expand(n_rows, k)
    positions = torch.zeros_like(positives)
    positions[index[hits]] = places[hits]
    return hits, positions


def _ranks(
    scores: torch.Tensor, rows: torch.Tensor, items: torch.Tensor, positions: torch.Tensor, k: int
) -> torch.Tensor:
    """Rank of each positive (see ``TopKCollector.take_ranks``), reading only rows whose list misses it."""
    target_scores = scores[rows, items]
    masked = torch.isneginf(target_scores)
    ranks = positions.clone()
    to_count = torch.nonzero((positions == 0) | masked).flatten()
    for block in to_count.split(max(1, _BLOCK_ELEMENTS // scores.shape[1])):
        above = (scores[rows[block]] > target_scores[block, None]).sum(dim=1)
        ranks[block] = torch.where(masked[block], above + 1, (above + 1).clamp(min=k + 1))
    return ranks


def _user_of_each_row(users: torch.Tensor, n_rows: int) -> torch.Tensor:
    """(n_rows,) user ids. RecBole's sampled evaluation lists each user's candidates one after the other."""
    return users if len(users) == n_rows else torch.unique_consecutive(users)
