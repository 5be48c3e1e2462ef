"""LRURec (arXiv 2310.02367): linear recurrent units over item ids."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_hllm.config.keys.sequence_encoders import LRURecKeys
from recbole_hllm.model.base.item_table import INITIAL_STD, ItemTableRecommender
from recbole_hllm.model.base.next_item import History
from recbole_hllm.model.base.servable import with_weights
from recbole_hllm.nn.lru import LRUBlock
from recbole_hllm.nn.user_models.sequence import LRUUser


class LRURec(ItemTableRecommender):
    """Recurrent blocks over item vectors; scores are products with the same vectors, plus a bias for each item.

    The bias is the last number of an item's row, and that of a prediction is 1: the score is one product.

    Args:
        config: the run's Config; keys are explained in ``properties/model/LRURec.yaml``.
        dataset: the training part of a SequenceDataset.
    """

    Keys: ClassVar[type[LRURecKeys]] = LRURecKeys
    settings: LRURecKeys

    def __init__(self, config: Any, dataset: Any) -> None:
        width = self.Keys.of(config).hidden_size
        super().__init__(config, dataset, width + 1)
        settings, dropout = self.settings, self.settings.hidden_dropout_prob
        self.input = nn.Sequential(nn.Dropout(dropout), nn.LayerNorm(width))
        self.blocks = nn.Sequential(
            *(
                LRUBlock(width, settings.inner_size, dropout, settings.recurrent_dropout_prob)
                for _ in range(settings.n_layers)
            )
        )
        self.blocks.apply(_initialise)

    def read_history(self, vectors: Tensor, history: History) -> Tensor:
        """(B, S, D + 1) rows of the table -> (B, S, D + 1) predictions."""
        read = self.blocks(self.input(vectors[..., :-1]))
        return torch.cat([read, torch.ones_like(read[..., :1])], dim=-1)

    def user_model(self) -> LRUUser:
        """The blocks, which read histories without RecBole."""
        settings = self.settings
        return with_weights(LRUUser(settings.hidden_size, settings.n_layers, settings.inner_size), self)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INITIAL_STD, a=-2 * INITIAL_STD, b=2 * INITIAL_STD)
        nn.init.zeros_(module.bias)
