"""FMLP-Rec (arXiv 2202.13556): an MLP with learned filters over the frequencies of a history."""

from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_hllm.config.keys.sequence_encoders import FMLPRecKeys
from recbole_hllm.model.base.contract import Factorised
from recbole_hllm.model.base.item_table import INITIAL_STD, groups_by_decay
from recbole_hllm.model.base.servable import Servable, with_weights
from recbole_hllm.nn.frequency_filter import FilterBlock
from recbole_hllm.nn.losses import info_nce
from recbole_hllm.nn.positions import PositionTable
from recbole_hllm.nn.user_models.sequence import FilterUser
from recbole_hllm.serving.served import ServedVectors


class FMLPRec(SequentialRecommender, Factorised, Servable):
    """Filters over the whole history, whose last place predicts the next item, by products with the item table.

    A filter reads later places too, so that a training row is one target and the items before it, as in RecBole; rows
    are padded on the left to MAX_ITEM_LIST_LENGTH, as published: the last item is always at the last place. The loss
    is cross-entropy over the whole catalogue, where the paper compares with one drawn item.

    Args:
        config: the run's Config; keys are explained in ``properties/model/FMLPRec.yaml``.
        dataset: the training part of a SequenceDataset.
    """

    Keys: ClassVar[type[FMLPRecKeys]] = FMLPRecKeys
    settings: FMLPRecKeys
    input_type = InputType.POINTWISE
    similarity = "dot"
    DRAWS_NEGATIVES = False  # the loss is over the whole catalogue

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = settings = self.Keys.of(config)
        length, width, dropout = settings.MAX_ITEM_LIST_LENGTH, settings.hidden_size, settings.hidden_dropout_prob
        self.item_embedding = nn.Embedding(self.n_items, width, padding_idx=0)
        self.positions = PositionTable(length, width, INITIAL_STD)
        self.input = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout))
        blocks = (FilterBlock(length, width, settings.inner_size, dropout) for _ in range(settings.n_layers))
        self.blocks = nn.Sequential(*blocks)
        with torch.no_grad():
            self.item_embedding.weight[1:].normal_(std=INITIAL_STD)
        self.blocks.apply(_initialise)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Cross-entropy of each row's target among all items.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0, ``item_length`` (B,), ``item_id`` (B,).
        """
        targets = interaction[self.ITEM_ID]
        ids = torch.arange(1, self.n_items, device=targets.device)
        items, scale = self.item_embedding(ids), torch.zeros((), device=ids.device)
        result = info_nce(self._read(interaction), items[targets - 1], items, targets, ids, scale, None, cosine=False)
        self.loss_terms = {f"top{k}_accuracy": value for k, value in result.accuracy.items()}
        return result.loss

    def _read(self, rows: Interaction) -> Tensor:
        """(B, D) predictions."""
        items, length, width = rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN][:, None], self.settings.MAX_ITEM_LIST_LENGTH
        place = length - width + torch.arange(width, device=items.device)
        items = items.gather(1, place.clamp(0, items.shape[1] - 1)) * (place >= 0)
        return self.blocks(self.input(self.item_embedding(items) + self.positions(width)))[:, -1]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Norms and biases do not decay."""
        return groups_by_decay(self)

    def positions_read(self, rows: Interaction) -> int:
        """Every row is as long as the longest."""
        return len(rows) * self.settings.MAX_ITEM_LIST_LENGTH

    def scoring_flops(self, rows: Interaction) -> float:
        """Each row's target is compared with all items."""
        return 6.0 * len(rows) * (self.n_items - 1) * self.settings.hidden_size

    # ---- vectors and scores ----

    def item_vectors(self) -> Tensor:
        """(n_items, D) rows of the table."""
        return self.item_embedding.weight

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) predictions, to be multiplied with item vectors.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0, ``item_length`` (B,).
        """
        return self._read(interaction).float()

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) product of each row's prediction and its item's vector."""
        return (self.user_vectors(interaction) * self.item_embedding(interaction[self.ITEM_ID])).sum(-1)

    def factors(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """(B, D) and (n_items, D) vectors whose product is the score."""
        return self.user_vectors(interaction), self.item_embedding.weight

    def served(self) -> ServedVectors:
        """The filters, and the item table."""
        settings, length = self.settings, self.settings.MAX_ITEM_LIST_LENGTH
        filters = FilterUser(settings.hidden_size, length, settings.n_layers, settings.inner_size)
        return ServedVectors(with_weights(filters, self), self.item_vectors(), cosine=False, length=length)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INITIAL_STD)
        nn.init.zeros_(module.bias)
