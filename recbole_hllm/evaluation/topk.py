"""The collector of rankings: hits, lists and ranks, without a label matrix of the size of the scores."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector, DataStruct
from torch import Tensor

from recbole_hllm.evaluation.columns import MASKED
from recbole_hllm.evaluation.diversity import training_counter
from recbole_hllm.evaluation.metrics import check_topk, needed_by
from recbole_hllm.evaluation.ranking import Ranking, ScoreProduct, ScoreTable, rank_each
from recbole_hllm.processes import current

# Row and item of what is no candidate.
Masked = tuple[Tensor, Tensor] | None

_PER_PASS = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")
_COLLECTED = ("rec.topk", "rec.meanrank", "rec.items")
_RANKS = ("user", "target", "rank")


class TopKCollector(Collector):
    """RecBole's ``Collector`` without the (users x items) label matrix, keeping the rank of each target.

    RecBole's Evaluator gets the values it gets from the stock collector where no two scores of a row are equal. Of
    equal ones the item with the smaller id comes first (see ``evaluation.ranking``). GAUC, which is defined over whole
    sorted rows, is collected by RecBole's own code.

    Attributes:
        whole_rows: metrics read all scores of a row, so that they must be there as one table.
        columns: mark after the name of a metric -> the collector of such metrics: this one has all of them.
    """

    data_struct: DataStruct

    def __init__(self, config: Any) -> None:
        super().__init__({"metrics": [], **{key: config[key] for key in ("topk", "eval_args", "device")}})
        for need in needed_by(config["metrics"], labelled=False):
            setattr(self.register, need, True)
        self.config, self.k = config, max(self.topk)
        self.whole_rows = self.register.need("rec.meanrank")
        self.columns: dict[str, TopKCollector] = {"": self}
        self._stock = Collector({"metrics": ["GAUC"], **{key: config[key] for key in ("topk", "eval_args", "device")}})
        self._batches: dict[str, list[np.ndarray]] = {}
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
        """Collects one batch, as RecBole's method.

        Args:
            scores_tensor: (rows, items) scores, -inf where an item is no candidate.
            interaction: the batch; it names the user of each row.
            positive_u: (positives,) row of each positive item.
            positive_i: (positives,) its item id. A row may have several positives.
        """
        self.collect(ScoreTable(scores_tensor), interaction, positive_u, positive_i)

    def collect(
        self,
        scores: ScoreTable | ScoreProduct,
        interaction: Interaction,
        positive_u: Tensor,
        positive_i: Tensor,
        masked: Masked = None,
    ) -> None:
        """Collects one batch of scores that need not be there as one table.

        Args:
            scores: of its rows; -inf is no candidate.
            interaction, positive_u, positive_i: as for ``eval_batch_collect``.
            masked: row and item of what is no candidate either.
        """
        masks = self._masks(masked)
        # One sorted key per distinct (row, item): RecBole's label matrix counts a repeated positive once.
        positives = torch.unique(positive_u.to(scores.device) * scores.n_items + positive_i.to(scores.device))
        rows, items = positives // scores.n_items, positives % scores.n_items
        rankings = rank_each(scores, rows, items, masks, self.k if self.register.need("rec.items") else 0)
        users = _user_of_each_row(interaction[self.config["USER_ID_FIELD"]], scores.n_rows)
        for collector, mask, ranking in zip(self.columns.values(), masks, rankings, strict=True):
            if self.whole_rows:
                assert isinstance(scores, ScoreTable), "whole_rows asks for one table"
                collector._keep_whole(_without(scores.values, mask), interaction, positive_u, positive_i)
            collector._keep_ranking(ranking, scores.n_rows, users, rows, items)

    def _masks(self, masked: Masked) -> tuple[Masked, ...]:
        """The mask of each column."""
        return (masked,)

    def _keep_whole(self, scores: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor) -> None:
        self._stock.eval_batch_collect(scores, interaction, positive_u, positive_i)
        self._keep("rec.meanrank", self._stock.data_struct.get("rec.meanrank"))
        del self._stock.data_struct["rec.meanrank"]

    def _keep_ranking(self, ranking: Ranking, n_rows: int, users: Tensor, rows: Tensor, items: Tensor) -> None:
        """Keeps what metrics need of the ranking of some rows.

        Args:
            users: (n_rows,) of each row.
            rows, items: (P,) of each target.
        """
        if self.register.need("rec.items"):
            self._keep("rec.items", ranking.lists)
        if self.register.need("rec.topk"):
            hits = torch.zeros(n_rows, self.k + 1, dtype=torch.int32, device=rows.device)
            hit = ranking.candidates & (ranking.ranks <= self.k)
            hits[rows[hit], ranking.ranks[hit] - 1] = 1
            hits[:, self.k] = torch.bincount(rows, minlength=n_rows)
            self._keep("rec.topk", hits)
        batch = {"user": users[rows.to(users.device)], "target": items, "rank": ranking.ranks}
        self._rank_batches.append({name: values.cpu().numpy() for name, values in batch.items()})

    def _keep(self, name: str, batch: torch.Tensor) -> None:
        self._batches.setdefault(name, []).append(batch.cpu().numpy())

    def get_data_struct(self) -> DataStruct:
        """Ends an evaluation pass: what RecBole's Evaluator needs, of the batches of all processes in their order;
        tensors on the CPU.

        (The stock method calls ``.cpu()`` on the item count and the item counter too, and fails for every
        metric that needs them: item coverage, Gini index, average popularity, tail percentage.)
        """
        for name in filter(self.register.need, _COLLECTED):
            self.data_struct.set(name, torch.from_numpy(np.concatenate(_of_all(self._batches.get(name, [])))))
        self._rank_batches = [
            dict(zip(_RANKS, arrays, strict=True))
            for arrays in zip(*(_of_all([batch[name] for batch in self._rank_batches]) for name in _RANKS), strict=True)
        ]
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
            targets in order of their id. 1 is the best rank: one more than the items with a higher score, or with the
            same score and a smaller id. So ``rank <= k`` is what RecBole counts as a hit at every k of ``topk``. The
            exception is a target that was masked (score -inf): it ranks just after the row's candidates and is no hit.
        """
        batches, self._ranks = self._ranks, []
        empty = np.empty(0, dtype=np.int64)
        return {
            name: np.concatenate([empty, *(batch[name] for batch in batches)])
            for name in _RANKS
        }


class BothCollector(TopKCollector):
    """``TopKCollector`` with the history left in, and beside it one with the history taken out, of the same scores."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.columns = {"": self, MASKED: TopKCollector(config)}

    def data_collect(self, train_data: Any) -> None:
        """As ``TopKCollector.data_collect``, for both."""
        super().data_collect(train_data)
        self.columns[MASKED].data_collect(train_data)

    def _masks(self, masked: Masked) -> tuple[Masked, ...]:
        """What is masked is no candidate in the second column alone."""
        return None, masked

    def take_ranks(self) -> dict[str, np.ndarray]:
        """Also ``rank_masked``, with the history taken out."""
        return {**super().take_ranks(), "rank_masked": self.columns[MASKED].take_ranks()["rank"]}


def ranking_collector(config: Any) -> TopKCollector:
    """The collector that ``mask_history`` asks for."""
    return (BothCollector if config["mask_history"] == "both" else TopKCollector)(config)


def _without(scores: Tensor, masked: tuple[Tensor, Tensor] | None) -> Tensor:
    """Scores with -inf for what is masked."""
    if masked is None:
        return scores
    scores = scores.clone()
    scores[masked[0].to(scores.device), masked[1].to(scores.device)] = -torch.inf
    return scores


def _of_all(batches: list[np.ndarray]) -> list[np.ndarray]:
    """The batches of all processes, in their order."""
    return [batch for theirs in current().gather_lists(batches) for batch in theirs]


def _user_of_each_row(users: torch.Tensor, n_rows: int) -> torch.Tensor:
    """(n_rows,) user ids. RecBole's sampled evaluation lists each user's candidates one after the other."""
    return users if len(users) == n_rows else torch.unique_consecutive(users)
