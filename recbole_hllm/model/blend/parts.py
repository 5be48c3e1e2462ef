"""A finished run as a part of a Blend: its logits, and the vectors that they are products of."""

from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.blend import BlendKeys
from recbole_hllm.config.keys.next_item import HistoryKeys
from recbole_hllm.data.rows.columns import EVENT_ACTIONS, EVENT_TIMES
from recbole_hllm.errors import ConfigError, ModelError, naming
from recbole_hllm.evaluation.products import ProductFinder
from recbole_hllm.model.base.served_model import served_of
from recbole_hllm.model.base.trained_run import TrainedRun
from recbole_hllm.model.baselines.markov import Markov
from recbole_hllm.serving.served import Part as ServedPart
from recbole_hllm.serving.served import ServedBlend, ServedPairs


class Part:
    """A model, frozen, that ranks the catalogue.

    Logits are its scores times ``score_scale``: their softmax is its probability of each item.

    Args:
        run: of which it is.
        name: of the run, for log and errors.
    """

    def __init__(self, run: TrainedRun, name: str) -> None:
        self.model, self.dataset, self.name = run.model, run.dataset, name
        self.scale = run.model.score_scale()
        self.length = history_length(run.config)
        settings = HistoryKeys.of(run.config)
        self.items, self.lengths = settings.ITEM_ID_FIELD + settings.LIST_SUFFIX, settings.ITEM_LIST_LENGTH_FIELD
        self.finder = ProductFinder(self.model.full_sort_predict, self.dataset.item_num)

    def product(self, rows: Interaction) -> tuple[Tensor, Tensor] | None:
        """(B, D) and (N, D) vectors whose product the logits are; None where they are none."""
        rows = self._cut(rows)
        found = self.model.factors(rows) or self.finder.find(rows)
        return None if found is None else (found[0].float() * self.scale, found[1].float())

    def add_beside(self, scores: Tensor, rows: Interaction, weights: Tensor) -> None:
        """Adds to (B, N) scores what the product leaves out, times the (B,) weights. Here: nothing."""

    def beside(self, column: int) -> dict[str, Tensor]:
        """That as arrays for other programs; ``column`` is the first one of the part's vectors. Here: nothing."""
        return {}

    def logits(self, rows: Interaction) -> Tensor:
        """(B, N) float32, less a number that all items of a row have in common.

        Raises:
            ModelError: one is not a number.
        """
        product = self.product(rows)
        if product is None:
            return self._finite(self._scores(self._cut(rows)).float() * self.scale)
        logits = product[0] @ product[1].T
        self.add_beside(logits, rows, logits.new_ones(len(logits)))
        return logits

    def served(self) -> ServedPart:
        """What recommends of the model, without RecBole and without data.

        Raises:
            ModelError: it cannot stand alone.
        """
        with naming(f"of: {self.name}"):
            served = served_of(self.model)
            if not isinstance(served, ServedBlend):
                return served
            if type(served) is not ServedBlend or len(served.parts) > 1 or not bool((served.mix == 1).all()):
                raise ModelError("it is a Blend itself; blend its parts")
        return served.parts[0]  # EASE is the sum of one

    @property
    def device(self) -> torch.device:
        """That of the model."""
        return next(self.model.parameters()).device

    def _scores(self, rows: Interaction) -> Tensor:
        """(B, N) the model's, item by item where it scores no catalogue at once."""
        try:
            return self.model.full_sort_predict(rows).view(len(rows), -1)
        except NotImplementedError:
            every = torch.arange(self.dataset.item_num, device=self.device)
            return torch.stack([self._scores_of(rows[row : row + 1], every) for row in range(len(rows))])

    def _scores_of(self, row: Interaction, items: Tensor) -> Tensor:
        pairs = row.repeat(len(items))
        pairs[self.dataset.iid_field] = items
        return self.model.predict(pairs)

    def _finite(self, scores: Tensor) -> Tensor:
        """An item without a probability gets the lowest one of its row: a sum would lose all that others say of it. A
        row without any says nothing."""
        if scores.isnan().any():
            raise ModelError(f"of: scores of {self.name} are not numbers")
        none = scores.isneginf()
        lowest = scores.masked_fill(none, torch.inf).amin(1, keepdim=True)
        return torch.where(none, lowest.masked_fill(lowest.isposinf(), 0), scores)

    def _cut(self, rows: Interaction) -> Interaction:
        """The last items of each history, as many as the model reads, padded on the right to that number."""
        width, lengths = rows[self.items].shape[1], rows[self.lengths]
        if width == self.length:
            return rows
        kept, place = lengths.clamp(max=self.length), torch.arange(self.length, device=lengths.device)
        source = ((lengths - kept)[:, None] + place).clamp(max=width - 1)
        row, padding = torch.arange(len(lengths), device=lengths.device)[:, None], place >= kept[:, None]
        columns = {self.lengths: kept}
        for name, values in rows.interaction.items():
            if values.shape[1:2] == (width,) and (name in (EVENT_TIMES, EVENT_ACTIONS) or name == self.items):
                columns[name] = values[row, source]
                columns[name][padding] = 0
        return Interaction({**rows.interaction, **columns})


class MarkovPart(Part):
    """Markov, whose counts are smoothed: what an item has after any other is a product, a sparse table is beside it.

    Args:
        run, name: as of every part.
        smoothing: ``markov_smoothing``.
    """

    model: Markov

    def __init__(self, run: TrainedRun, name: str, smoothing: float) -> None:
        super().__init__(run, name)
        popular, self.values = self.model.smoothed(smoothing)
        self.popular = popular.float()[:, None]

    def product(self, rows: Interaction) -> tuple[Tensor, Tensor]:
        """(B, 1) ones and (N, 1) the logarithms of popularity."""
        return self.popular.new_ones(len(rows), 1), self.popular

    def add_beside(self, scores: Tensor, rows: Interaction, weights: Tensor) -> None:
        """Adds what an item has after the last one of a row."""
        self.model.add_pairs(scores, rows, self.values, weights)

    def served(self) -> ServedPairs:
        """Both."""
        pairs, n_items = self.model.pairs, self.dataset.item_num
        return ServedPairs(self.popular[:, 0], torch.stack([pairs // n_items, pairs % n_items], dim=1), self.values)

    def beside(self, column: int) -> dict[str, Tensor]:
        """``markov_pairs`` (P, 2), an item and the one after it, ``markov_values`` (P,), and ``markov_column``: where a
        user's vector has the number that these are multiplied by."""
        pairs, n_items = self.model.pairs, self.dataset.item_num
        return {
            "markov_pairs": torch.stack([pairs // n_items, pairs % n_items], dim=1),
            "markov_values": self.values.float(),
            "markov_column": torch.tensor(column),
        }


def part_of(run: TrainedRun, name: str, settings: BlendKeys) -> Part:
    """The part that a run is.

    Raises:
        ConfigError: the blend's rows do not hold what it reads.
    """
    check_part(run.config, name, settings)
    if isinstance(run.model, Markov):
        return MarkovPart(run, name, settings.markov_smoothing)
    return Part(run, name)


def check_part(config: Any, name: str, settings: BlendKeys) -> None:
    """Raises ConfigError where the rows of a Blend cannot be those of a part.

    Args:
        config: the part's Config.
        name: of the part.
        settings: the blend's.
    """
    if config.spec.rows.labelled:
        raise ConfigError(f"of: {name} scores labelled rows; the parts of a blend rank items")
    if (length := history_length(config)) > settings.MAX_ITEM_LIST_LENGTH and config.spec.rows.reads_history:
        raise ConfigError(
            f"MAX_ITEM_LIST_LENGTH: {settings.MAX_ITEM_LIST_LENGTH}: {name} reads histories of {length} items; give "
            "the blend the longest of its parts"
        )
    action = BlendKeys.of(config).action_field
    if action and action != settings.action_field:
        raise ConfigError(f"action_field: {name} reads the column {action!r}; give the blend action_field: {action}")


def history_length(config: Any) -> int:
    """Most items of a history that a run's model reads in evaluation."""
    settings = HistoryKeys.of(config)
    longer = settings.MAX_ITEM_LIST_LENGTH_TEST if config.spec.rows.longer_in_evaluation else None
    return longer or settings.MAX_ITEM_LIST_LENGTH
