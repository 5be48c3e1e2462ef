"""Recommenders whose score is the cosine of a user's and an item's vector, or their dot product."""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_hllm.config.keys.next_item import TwoTowerKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.model.base.contract import Factorised
from recbole_hllm.nn.losses import clamp_logit_scale, new_logit_scale


class TwoTowers(SequentialRecommender, Factorised):
    """Scores by cosines or dot products, learned with a temperature, ``temperature`` or one that is learned too.

    A model gives ``catalogue_vectors()`` and ``user_vectors(interaction)``. In evaluation mode the whole catalogue's
    vectors are computed at the first need and kept until training goes on.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Attributes:
        settings: the values of the model's keys.
    """

    Keys: ClassVar[type[TwoTowerKeys]] = TwoTowerKeys
    settings: TwoTowerKeys
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = self.Keys.of(config)
        if self.settings.temperature is None:
            self.logit_scale = new_logit_scale()
        else:
            self.register_buffer("logit_scale", torch.tensor(-math.log(self.settings.temperature)), persistent=False)
        self.autocast_dtype = AUTOCAST_DTYPES[self.settings.precision]
        self._table: Tensor | None = None
        self._directions: Tensor | None = None  # of the table's rows

    # ---- vectors ----

    def catalogue_vectors(self) -> Tensor:
        """(n_items, D) vectors of all items."""
        raise NotImplementedError

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) vectors of each row's user, not normalised."""
        raise NotImplementedError

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """(n_items, D) vectors of the whole catalogue, not normalised; row 0 is the padding item's, zeros."""
        if self._table is None or self.training:
            mode = self.training
            super().train(False)
            self._table, self._directions = self.catalogue_vectors().float(), None
            super().train(mode)
        return self._table

    def train(self, mode: bool = True) -> "TwoTowers":
        """The catalogue's vectors are forgotten when training goes on."""
        if mode:
            self._table = self._directions = None
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._table = self._directions = None  # of the old weights; called for a part of another model too
        super()._load_from_state_dict(*args)

    # ---- scores ----

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) cosine or product of each row's user vector and its item's vector."""
        users, items = self.user_vectors(interaction), self.item_vectors()[interaction[self.ITEM_ID]]
        return (users * items).sum(-1) if self.similarity == "dot" else F.cosine_similarity(users, items, dim=-1)

    def directions(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """(B, D) and (n_items, D) vectors of length 1 of each row's user and of all items."""
        users, items = self.user_vectors(interaction), self.item_vectors()
        if self._directions is None:
            self._directions = F.normalize(items, dim=-1)
        return F.normalize(users, dim=-1), self._directions

    def factors(self, interaction: Interaction) -> tuple[Tensor, Tensor] | None:
        """The vectors themselves, or their ``directions``, whose product is the cosine; None where the score is another
        function of them."""
        if self.similarity == "dot":
            return self.user_vectors(interaction), self.item_vectors()
        return self.directions(interaction) if self.similarity == "cosine" else None

    def score_scale(self) -> float:
        """1 / temperature, as the loss has it; 1 where the score is another function of the vectors."""
        return 1.0 if self.similarity == "other" else float(clamp_logit_scale(self.logit_scale).detach().exp())
