"""ENMF: RecBole's, trained on one row for each user."""

from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import ENMF as RecBoleENMF
from torch import Tensor


class ENMF(RecBoleENMF):
    """RecBole's ENMF (Chen et al., TOIS 2020): matrix factorisation with a loss over all items, without negatives.

    Histories are padded with item 0, whose vector RecBole draws like any other, so that the loss counts it as an item
    that the user has: it is 0 here. Scores are a product of vectors, not a table with a vector for each pair.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
    """

    DRAWS_NEGATIVES = False  # the loss is over all items

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, n_items) score of every item; ``interaction`` names the users."""
        users = self.user_embedding(interaction[self.USER_ID]) * self.H_i.weight
        return users @ self.item_embedding.weight.T
