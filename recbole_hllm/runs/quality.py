"""What vectors in fewer bytes cost: metrics of a run's own evaluation, with the vectors as they are and as written."""

from collections.abc import Mapping
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.next_item import HistoryKeys
from recbole_hllm.data.rows.columns import EVENT_TIME, EVENT_TIMES, WHOLE_HISTORY
from recbole_hllm.model.base.contract import CatalogueScorer
from recbole_hllm.runs.card_facts import PART_NAMES
from recbole_hllm.runs.run import Run
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import Served, ServedBlend
from recbole_hllm.training.trainer import Trainer
from recbole_hllm.units import format_bytes


class _Scorer(CatalogueScorer):
    """Scores rows of an evaluation as an export does.

    Args:
        served: what recommends.
        items, lengths: names of the columns with histories and their lengths.
    """

    def __init__(self, served: Served, items: str, lengths: str) -> None:
        super().__init__()
        self.served, self.columns = served, (items, lengths)
        self.scores_all = isinstance(served, ServedBlend) and served.scores_all

    def factors(self, interaction: Interaction) -> tuple[Tensor, Tensor] | None:
        """(B, E) and (N, E) vectors; None where scores are more than their product."""
        if self.scores_all:
            return None
        rows = self._rows(interaction)
        return None if self.served.beside(rows) is not None else (self.served.users(rows), self.served.items)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, N) scores."""
        rows = self._rows(interaction)
        if isinstance(self.served, ServedBlend):
            return self.served.scores(rows)
        return self.served.users(rows) @ self.served.items.T

    def _rows(self, interaction: Interaction) -> Rows:
        times, at = (interaction[name] if name in interaction else None for name in (EVENT_TIMES, EVENT_TIME))
        if WHOLE_HISTORY not in interaction:
            items, lengths = (interaction[column] for column in self.columns)
            return Rows(items, lengths, times, at).to(self.served.items.device)
        items = interaction[WHOLE_HISTORY]
        lengths = (items > 0).sum(1)
        if times is not None:
            times = _of_the_last(times, interaction[self.columns[1]], lengths, items.shape[1])
        return Rows(items, lengths, times, at).to(self.served.items.device)


def _of_the_last(times: Tensor, known: Tensor, lengths: Tensor, width: int) -> Tensor:
    """(B, W) times of whole histories, of which those of the last (B,) ``known`` items are given, as (B, S)."""
    rows, places = (torch.arange(times.shape[1], device=times.device) < known[:, None]).nonzero(as_tuple=True)
    whole = times.new_zeros(len(times), width)
    whole[rows, lengths[rows] - known[rows] + places] = times[rows, places]
    return whole


@torch.no_grad()
def quality_as_written(run: Run, served: Served, written: Served) -> dict[str, Any] | None:
    """Metrics of the test, or of the validation of a run without one.

    Args:
        run: from ``load_run``.
        served: with the vectors as they are.
        written: with those of the export.

    Returns:
        ``of`` (test or valid), and metrics by name, ``float32`` and ``written``; the user model is in float32 in both.
        None where the run has neither part.
    """
    loader = run.test_data or run.valid_data
    if not loader:
        return None
    trainer, settings = Trainer(run.config, run.model, run.run_dir), HistoryKeys.of(run.config)
    columns = settings.ITEM_ID_FIELD + settings.LIST_SUFFIX, settings.ITEM_LIST_LENGTH_FIELD
    trainer.eval_collector.data_collect(run.train_data)
    metrics = []
    for one in (served, written):
        trainer.model = _Scorer(one, *columns)
        metrics.append(trainer.evaluate(loader))
    return {"of": "test" if run.test_data else "valid", "float32": metrics[0], "written": metrics[1]}


def quality_lines(quality: Mapping[str, Any] | None) -> list[str]:
    """``quality`` of a manifest as lines for a terminal: what ``quality_as_written`` found, ``dtype`` and ``bytes``."""
    if quality is None:
        return ["the run has no test and no validation: what the rounded vectors cost is not measured"]
    dtype, width = quality["dtype"], max(map(len, quality["float32"]))
    part, size = PART_NAMES[quality["of"]], format_bytes(quality["bytes"])
    lines = [f"vectors of items as {dtype}, {size}: {part} with float32, with {dtype}, change"]
    for name, before in quality["float32"].items():
        after = quality["written"][name]
        lines.append(f"  {name:<{width}}  {before:.4f}  {after:.4f}  {after - before:+.4f}")
    return lines
