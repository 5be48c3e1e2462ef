"""The Trainer's evaluation: scores that are products of vectors are ranked in blocks, and never stand in one table.

Of several processes each evaluates some whole batches, made as one process makes them, and all know the result of all.
"""

import time
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer as RecBoleTrainer
from torch import Tensor
from tqdm import tqdm

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.loader import CANDIDATES, EvalLoader
from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation.products import ProductFinder
from recbole_hllm.evaluation.ranking import ScoreProduct, ScoreTable
from recbole_hllm.model.base.contract import Picked
from recbole_hllm.processes import current
from recbole_hllm.storage.files import write_json
from recbole_hllm.training.checkpoint import load_model
from recbole_hllm.training.picking import Values

# Scores of a model that has no product of vectors, which are computed at a time: 64 MB of float32.
_SCORES_AT_ONCE = 1 << 24
# Of each part, where many weighted sums of them are compared: 4 MB, for the cache of a CPU.
_SCORES_TO_PICK_BY = 1 << 20


class Evaluation(RecBoleTrainer):
    """RecBole's Trainer with another evaluation. ``eval_collector`` and ``evaluator`` are made by who derives from it.

    Attributes:
        scoring_seconds: of the evaluation that ended last, reading of users, scoring and ranking.
        scored_rows: how many rows this process ranked in them.
        evaluation_seconds: all of it.
    """

    settings: RunKeys
    run_dir: Path
    scored_rows: int = 0

    def evaluate(
        self, eval_data: Any, load_best_model: bool = False, model_file: Any = None, show_progress: bool = False
    ) -> dict[str, float] | None:
        """RecBole's evaluation; ``eval_collector`` then gives each target's rank, or each labelled row's score.

        Args:
            eval_data: an evaluation loader; None gives None.
            load_best_model: evaluate the best weights instead of those the model has.
            model_file: folder of a checkpoint to take instead of the best one.
            show_progress: draw a bar.
        """
        if not eval_data:
            return None
        processes = current()
        show = show_progress and processes.is_first
        if load_best_model:
            load_model(Path(model_file or self.run_dir / "best"), self.model)
        start, self.scoring_seconds, self.scored_rows = time.perf_counter(), 0.0, 0
        self.model.eval()
        self.model.prepare_evaluation()  # here, as a process without a batch has to take part in it
        with eval_data.dealt(processes.share):
            if isinstance(eval_data, EvalLoader):
                result = self._rank_all(eval_data, show)
            else:
                result = super().evaluate(eval_data, load_best_model=False, show_progress=show)
        result = processes.first_of({metric: float(value) for metric, value in result.items()})
        self.evaluation_seconds = time.perf_counter() - start
        # NumPy numbers print and serialise badly, those in single precision with digits that nobody computed.
        return {metric: round(value, self.settings.metric_decimal_place) for metric, value in result.items()}

    @torch.no_grad()
    def _rank_all(self, eval_data: EvalLoader, show_progress: bool) -> dict[str, Any]:
        self._prepare_scores(eval_data)
        finder = ProductFinder(self.model.full_sort_predict, eval_data._dataset.item_num)
        total = len(current().share(len(eval_data)))
        for batch in tqdm(eval_data, desc="Evaluate", total=total, disable=not show_progress, leave=False):
            start = time.perf_counter()
            self._rank(batch, finder)
            self.scored_rows += len(batch[0])
            if self.gpu_available:
                torch.cuda.synchronize(self.device)
            self.scoring_seconds += time.perf_counter() - start
        result: dict[str, Any] = {}
        for mark, collector in self.eval_collector.columns.items():
            values = self.evaluator.evaluate(collector.get_data_struct())
            result |= {metric + mark: value for metric, value in values.items()}
        self.wandblogger.log_eval_metrics(result, head="eval")
        return result

    def check_validation(self, valid_data: Any) -> None:
        """Raises ConfigError where the model has something to pick and there is no validation to pick it by."""
        if valid_data is None and isinstance(self.model, Picked) and self.model.options():
            raise ConfigError(
                f"{self.settings.model} picks its weights on the validation, and there is none (eval_args, eval_step); "
                "give the weights, or a split with a validation part"
            )

    @torch.no_grad()
    def pick(self, valid_data: EvalLoader) -> None:
        """Lets a model that has something to pick do so, by the validation alone; what it saw is in ``picked.json``."""
        model = self.model
        if not isinstance(model, Picked) or not (options := model.options()):
            return
        model.eval()
        model.prepare_evaluation()
        values = Values(self.config, model.groups(), options)
        with valid_data.dealt(current().share):
            for batch in chain.from_iterable(_parts(whole, self._rows_at_once(valid_data)) for whole in valid_data):
                rows = batch[0].to(self.device)
                groups = model.group_of(rows).cpu().numpy()
                values.add_rows(groups)
                for option, scores in enumerate(model.scores_of_options(rows)):
                    values.add(option, only_candidates(scores, rows), groups, batch)
        seen = model.pick(*values.of_all_processes())
        if current().is_first:
            write_json(self.run_dir / "picked.json", seen)

    def _rows_at_once(self, eval_data: Any) -> int:
        return max(1, _SCORES_TO_PICK_BY // eval_data._dataset.item_num)

    def _prepare_scores(self, eval_data: Any) -> None:
        self.model.eval()
        self.tot_item_num = eval_data._dataset.item_num
        self.item_tensor = eval_data._dataset.get_item_feature().to(self.device)

    def _rank(self, batch: Any, finder: ProductFinder) -> None:
        """Collects a batch of an EvalLoader."""
        rows, masked, row_of, targets = batch
        if not self.eval_collector.whole_rows and CANDIDATES not in rows:
            rows = rows.to(self.device)
            factors = self.model.factors(rows) or finder.find(rows)
            if factors is not None:
                self.eval_collector.collect(ScoreProduct(*factors), rows, row_of, targets, masked)
                return
        for part in _parts(batch, max(1, _SCORES_AT_ONCE // self.tot_item_num)):
            rows, masked, row_of, targets = part
            interaction, scores, row_of, targets = self._full_sort_batch_eval((rows, None, row_of, targets))
            self.eval_collector.collect(ScoreTable(scores), interaction, row_of, targets, masked)

    @torch.no_grad()
    def scores(self, eval_data: Any, rows: Interaction) -> Tensor:
        """(R, n_items) scores of some rows of an evaluation loader, as ``evaluate`` has them: -inf is no candidate.

        Args:
            eval_data: a loader that ranks items.
            rows: (R,) their numbers in its data set.
        """
        self._prepare_scores(eval_data)
        _, scores, _, _ = self._full_sort_batch_eval(eval_data.collate_fn(rows))
        return scores.view(len(rows), -1)

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        """The table of a batch's scores, as RecBole's, and -inf for what is no drawn candidate."""
        interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(batched_data)
        return interaction, only_candidates(scores, interaction), positive_u, positive_i


def only_candidates(scores: Tensor, interaction: Interaction) -> Tensor:
    """(B, N) scores, -inf where candidates were drawn for the rows and an item is none of them."""
    if CANDIDATES not in interaction:
        return scores
    candidates = interaction[CANDIDATES].to(scores.device)
    return torch.full_like(scores, -torch.inf).scatter_(1, candidates, scores.gather(1, candidates))


def _parts(batch: Any, size: int) -> Any:
    """A batch of an EvalLoader in parts of some rows."""
    rows, masked, row_of, targets = batch
    for begin in range(0, len(rows), size):
        part = slice(begin, begin + size)
        pairs = None if masked is None else _of(part, *masked)
        yield rows[part], pairs, *_of(part, row_of, targets)


def _of(part: slice, rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    inside = (rows >= part.start) & (rows < part.stop)
    return rows[inside] - part.start, items[inside]
