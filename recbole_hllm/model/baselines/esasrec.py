"""ESASRec (arXiv 2508.06450): SASRec's objective, LiGR layers, sampled softmax."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from recbole_hllm.config.keys.sequence_encoders import eSASRecKeys
from recbole_hllm.model.base.item_table import INITIAL_STD, ItemTableRecommender, check_heads, position_table
from recbole_hllm.model.base.next_item import History
from recbole_hllm.model.base.servable import with_weights
from recbole_hllm.nn.ligr import LiGRLayer
from recbole_hllm.nn.user_models.sequence import LiGRUser


class eSASRec(ItemTableRecommender):
    """A causal transformer of LiGR layers over item vectors; every position's target against drawn items.

    Args:
        config: the run's Config; keys are explained in ``properties/model/eSASRec.yaml``.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    Keys: ClassVar[type[eSASRecKeys]] = eSASRecKeys
    settings: eSASRecKeys

    def __init__(self, config: Any, dataset: Any) -> None:
        width = self.Keys.of(config).hidden_size
        super().__init__(config, dataset, width)
        settings = self.settings
        check_heads(width, settings.n_heads)
        self.positions = position_table(settings, width, INITIAL_STD)
        dropouts = settings.hidden_dropout_prob, settings.attn_dropout_prob
        self.layers = nn.Sequential(
            *(LiGRLayer(width, settings.n_heads, settings.inner_size, *dropouts) for _ in range(settings.n_layers))
        )

    def read_history(self, vectors: Tensor, history: History) -> Tensor:
        """(B, S, D) item vectors -> (B, S, D) predictions."""
        x = vectors + self.positions(vectors.shape[1])
        return self.layers(F.dropout(x, self.settings.hidden_dropout_prob, self.training))

    def user_model(self) -> LiGRUser:
        """The layers, which read histories without RecBole."""
        settings = self.settings
        sizes = settings.n_layers, settings.n_heads, settings.inner_size
        return with_weights(LiGRUser(settings.hidden_size, settings.MAX_ITEM_LIST_LENGTH, *sizes), self)
