"""What HLLM and the baselines trained like it share: each position of a window predicts the next item's vector."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.next_item import HistoryKeys, NextItemKeys, NextItemLossKeys
from recbole_hllm.data.rows.columns import EVENT_ACTIONS, EVENT_TIME, EVENT_TIMES
from recbole_hllm.errors import ModelError
from recbole_hllm.memory import free_memory
from recbole_hllm.model.base.further_negatives import check_room, further_negatives
from recbole_hllm.model.base.servable import Servable
from recbole_hllm.model.base.together import stands_in
from recbole_hllm.model.base.two_towers import TwoTowers
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.nn.losses import Calibration, InfoNCEResult, clamp_logit_scale, info_nce
from recbole_hllm.nn.negatives import FurtherNegatives, Negatives, once_each
from recbole_hllm.nn.own_products import vectors_are_copied, with_all
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.ragged import read_by_length
from recbole_hllm.nn.user_models.base import UserModel
from recbole_hllm.processes import current
from recbole_hllm.serving.served import Served, ServedVectors

# So many batches in a row with almost no negatives left are a collapse and not an accident.
_COLLAPSE_PATIENCE = 10


@dataclass(frozen=True)
class History:
    """What was read before each prediction: B rows of S positions, padded on the right.

    Args:
        items: (B, S) item ids, 0 is padding.
        times: (B, S) seconds of each of them, float64; None in rows not built by our loaders, without times.
        next_times: (B, S) seconds of the item after each of them, the one to predict.
        actions: (B, S) numbers of their actions; None without ``action_field``.
    """

    items: Tensor
    times: Tensor | None
    next_times: Tensor | None
    actions: Tensor | None

    @classmethod
    def of_windows(cls, windows: Tensor, rows: Interaction) -> "History":
        """(B, S + 1) items of training rows: all but the last are read, all but the first predicted."""
        times, actions = _field(rows, EVENT_TIMES), _field(rows, EVENT_ACTIONS)
        read, predicted = slice(None, -1), slice(1, None)
        return cls(windows[:, read], _cut(times, read), _cut(times, predicted), _cut(actions, read))

    @classmethod
    def before_target(cls, items: Tensor, last: Tensor, rows: Interaction) -> "History":
        """(B, S) items before one target each; ``last`` (B,) is where the target follows."""
        width = slice(items.shape[1])
        times, target_time = _cut(_field(rows, EVENT_TIMES), width), _field(rows, EVENT_TIME)
        next_times = None
        if times is not None and target_time is not None:
            next_times = torch.cat([times[:, 1:], times[:, -1:]], dim=1)
            next_times[torch.arange(len(last), device=last.device), last] = target_time
        return cls(items, times, next_times, _cut(_field(rows, EVENT_ACTIONS), width))

    def part(self, rows: Tensor, width: int) -> "History":
        """The first ``width`` positions of the rows (n,) named by number."""
        times, next_times, actions = (
            None if column is None else column[rows, :width] for column in (self.times, self.next_times, self.actions)
        )
        return History(self.items[rows, :width], times, next_times, actions)


class NextItemRecommender(TwoTowers, Servable):
    """Trains on windows of S + 1 items: every position's output is compared with the next item and with negatives.

    A model gives ``vectors_of(ids)`` and ``read_history(vectors, history)``.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
    """

    Keys: ClassVar[type[NextItemLossKeys]] = NextItemKeys
    COUNTERS = ("_starved",)
    settings: NextItemLossKeys

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        if self.settings.negatives == "catalogue":
            tell_unread(self.logger, self.settings, ["num_negatives"], "negatives is catalogue")
        if self.similarity != "other":  # a head's
            self.similarity = "dot" if self.settings.similarity == "dot" else "cosine"
        self.calibration: Calibration | None = None
        if self.settings.loss == "gbce":
            self.calibration = Calibration(self.settings.gbce_t, self.n_items - 1)
        else:
            tell_unread(self.logger, self.settings, ["gbce_t"], "loss is softmax")
        self.nce_thres = self.settings.nce_thres
        self.min_surviving = self.settings.min_surviving_negatives or 0.0
        self.further: FurtherNegatives | None = None
        self._width = 0
        self._starved = self._most_drawn = 0
        self._clock: float | None = None

    # ---- what a model computes ----

    def vectors_of(self, ids: Tensor) -> Tensor:
        """(N,) item ids, with repetitions -> (N, D) item vectors, not normalised; the padding item's is 0."""
        raise NotImplementedError

    def read_history(self, vectors: Tensor, history: History) -> Tensor:
        """(B, S, D) item vectors -> (B, S, D) predictions of each position's next item, from it and those before."""
        raise NotImplementedError

    def read_by_length(self, vectors: Tensor, history: History) -> Tensor:
        """What ``read_history`` gives, 0 at padding, with less of it read: most histories are far shorter than S.

        Rows of similar length are read together and cut to the longest of them, more than half of which is real in
        each row.
        """

        def read(rows: Any, longest: int) -> Tensor:
            return self.read_history(vectors[rows, :longest], history.part(rows, longest))

        return read_by_length(read, (history.items != 0).sum(1), vectors.shape[1])

    def catalogue_vectors(self) -> Tensor:
        """(n_items, D) vectors of all items."""
        return self.vectors_of(torch.arange(self.n_items, device=self.logit_scale.device))

    # ---- training ----

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss of every position of the windows (InfoNCE: HLLM, section 3.2).

        Args:
            interaction: ``item_id_list`` (B, S + 1) padded on the right with 0; ``neg_item_id`` (1, K) shared by the
                batch, all items with ``negatives: catalogue``, or (B, S, K) of each position.

        Returns:
            Scalar loss; ``loss_terms`` holds its components, for the log.
        """
        windows, negatives = interaction[self.ITEM_SEQ], interaction[self.NEG_ITEM_ID]
        wanted = torch.zeros_like(windows[:, 1:]) if stands_in(interaction) else windows[:, 1:]
        # As numbers of places: a mask would be counted again, and a GPU waited for, each time it is used.
        real = wanted.nonzero(as_tuple=True)
        self.loss_parts = len(real[0])
        negatives, needed, places = self.negatives_of(negatives, real)
        self.check_drawn(negatives, needed)
        vectors = self.vectors_of(torch.cat([windows.reshape(-1), needed]))
        sequence, negative = vectors.split([windows.numel(), len(needed)])
        sequence = sequence.view(*windows.shape, -1)
        outputs = self.read_by_length(sequence[:, :-1], History.of_windows(windows, interaction))
        drawn = Negatives(negatives, negative, places=places)
        result = self.contrast(outputs[real], sequence[:, 1:][real], windows[:, 1:][real], drawn, windows)
        self.report(result)
        return result.loss

    def negatives_of(self, drawn: Tensor, targets: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the targets are compared with.

        Args:
            drawn: (1, K) shared by the batch, or (B, S, K).
            targets: which of the B x S positions are targets.

        Returns:
            (K,) ids, the same, and None; or each target's own (P, K), the different ones of these, and their places.
        """
        if drawn.dim() == 2:
            return drawn[0], drawn[0], None
        own = drawn[targets]
        return own, *once_each(own, self.n_items)

    def check_drawn(self, ids: Tensor, needed: Tensor) -> None:
        """Raises ConfigError where the negatives of a step, more than in any before, cannot fit into memory.

        Args:
            ids: of them.
            needed: those whose vectors are.
        """
        if ids.numel() > self._most_drawn:
            copied = ids.dim() == 2 and vectors_are_copied(ids.device, len(needed), ids.shape[1])
            vectors = ids.numel() if copied else len(needed)
            check_room(ids.numel(), vectors, self._width, free_memory(ids.device))
            self._most_drawn = ids.numel()

    def contrast(
        self, outputs: Tensor, targets: Tensor, target_ids: Tensor, drawn: Negatives, items: Tensor
    ) -> InfoNCEResult:
        """The loss of predictions, with the drawn negatives and those that the keys add.

        Args:
            outputs: (P, D) predictions.
            targets: (P, D) vectors of the true next items; ``target_ids`` (P,) are their ids.
            drawn: negatives of the batch or of each position.
            items: (B, ...) ids of the rows.
        """
        negatives, biases = drawn, dict[str, Tensor | None]()
        if self.further is not None:
            negatives, of_targets = self.further(drawn, target_ids, targets)
            biases = {"target_bias": of_targets, "negative_bias": negatives.bias}
        scale = clamp_logit_scale(self.logit_scale)
        return info_nce(
            outputs,
            targets,
            negatives.vectors,
            target_ids,
            negatives.ids,
            scale,
            self.nce_thres,
            places=negatives.places,
            **biases,
            cosine=self.settings.similarity == "cosine",
            calibration=self.calibration,
        )

    def use_further_negatives(self, dataset: Any, width: int) -> None:
        """Negatives that cost no item to encode, where the keys want them; ``width`` is D.

        Raises:
            ConfigError: the keys contradict each other.
        """
        self._width, self.further = width, further_negatives(self.settings, dataset, width)

    def report(self, result: InfoNCEResult) -> None:
        """Keeps the loss's components in ``loss_terms``, on the device."""
        now = time.perf_counter()
        self.loss_terms = {
            "surviving_negatives": result.surviving,
            # Of a GPU, which is not waited for, right on average only.
            "batches/s": 1 / (now - self._clock) if self._clock else 0.0,
            "logit_scale": self.logit_scale.detach().exp(),
            **{f"top{k}_accuracy": value for k, value in result.accuracy.items()},
            **(self.further.terms() if self.further is not None else {}),
        }
        self._clock = now

    def watch(self, terms: Mapping[str, float]) -> None:
        """Stops a collapse.

        Args:
            terms: ``loss_terms`` of a training batch as plain numbers, of all batches in order.

        Raises:
            ModelError: almost no negative has been left for many batches in a row.
        """
        if "surviving_negatives" not in terms:  # a batch without a target of this loss
            return
        starved = terms["surviving_negatives"] < self.min_surviving
        self._starved = self._starved + 1 if starved else 0
        if self._starved >= _COLLAPSE_PATIENCE:
            raise ModelError(
                f"collapse: for {self._starved} batches fewer than {self.min_surviving} negatives a target survived "
                f"the filter (nce_thres {self.nce_thres}), so item vectors have become nearly parallel or "
                "num_negatives is too small for this catalogue; try a smaller learning rate (of an Item LLM: "
                "item_learning_rate), a larger nce_thres, or more negatives"
            )

    # ---- costs ----

    def items_are_trained(self) -> bool:
        """Whether item vectors have gradients. Default: they have."""
        return True

    def scoring_flops(self, rows: Interaction) -> float:
        """Every target's products with all its negatives; of a memory with as many as it keeps, of the targets of other
        processes as if each had as many as this one."""
        settings, targets = self.settings, int(np.count_nonzero(rows[self.ITEM_SEQ][:, 1:].cpu().numpy()))
        if self.NEG_ITEM_ID not in rows:
            return 0.0
        negatives = self._compared_with(rows) + (settings.cross_batch_negatives or 0)
        if settings.in_batch_negatives:
            negatives += targets * current().world_size
        # Forward, gradients of the predictions and of the items, and the filter's cosines.
        products = 2 + self.items_are_trained() + (self.nce_thres is not None)
        return 2.0 * products * targets * negatives * self._width

    def _compared_with(self, rows: Interaction) -> int:
        """How many drawn negatives each target is multiplied with."""
        drawn = rows[self.NEG_ITEM_ID]
        ids, needed, places = self.negatives_of(drawn, rows[self.ITEM_SEQ][:, 1:] != 0)
        return len(needed) if places is not None and with_all(len(needed), ids.shape[1]) else drawn.shape[-1]

    # ---- vectors ----

    def train(self, mode: bool = True) -> "NextItemRecommender":
        """The time between two modes is no batch's."""
        self._clock = None
        return super().train(mode)

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) predicted vectors of each user's next item, not normalised, read in the precision of the training.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0, ``item_length`` (B,), and for models that
                look at time ``event_time_list`` (B, L) and ``event_time`` (B,).
        """
        items, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        width, last = max(int(length.max()), 1), (length - 1).clamp(min=0)
        items = items[:, :width]
        history = History.before_target(items, last, interaction)
        with autocast(items.device, self.autocast_dtype):
            outputs = self.read_by_length(self.item_vectors()[items], history)
        return self.gather_indexes(outputs, last).float()

    # ---- serving ----

    def user_model(self) -> UserModel:
        """What ``read_history`` computes at the last item of a history, in plain torch, with the weights there are.

        Raises:
            ModelError: with these keys it does not stand alone.
        """
        raise NotImplementedError

    def served(self) -> Served:
        """User model and item vectors.

        Raises:
            ModelError: with these keys it does not stand alone.
        """
        settings = self.settings
        assert isinstance(settings, HistoryKeys), "a model that ranks the catalogue has them"
        return ServedVectors(
            self.user_model(),
            self.item_vectors(),
            cosine=self.similarity == "cosine",
            scale=self.score_scale(),
            length=settings.longest_history,
        )


def _field(rows: Interaction, name: str) -> Tensor | None:
    return rows[name] if name in rows else None


def _cut(columns: Tensor | None, part: slice) -> Tensor | None:
    return None if columns is None else columns[:, part]
