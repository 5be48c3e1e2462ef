"""Pop: the most frequent items of the training interactions, counted one by one."""

import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import Pop as RecBolePop
from torch import Tensor

from recbole_hllm.model.base.contract import CatalogueScorer


class Pop(RecBolePop, CatalogueScorer):
    """RecBole's Pop, which counts an item that occurs several times in a batch once, with that mended."""

    def inference_parameters(self) -> int:
        """A count of each item."""
        return self.item_cnt.numel()

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Counts the batch's items.

        Args:
            interaction: ``item_id`` (B,).

        Returns:
            A loss of 0: there is nothing to train.
        """
        items = interaction[self.ITEM_ID]
        self.item_cnt.index_add_(0, items, torch.ones_like(items)[:, None])
        self.max_cnt = self.item_cnt.max(dim=0)[0]
        return self.fake_loss.sum() * 0
