"""BERT4Rec: RecBole's, for batches without a target too."""

from typing import Any

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.recbole_models import sequential_recommender


class BERT4Rec(sequential_recommender.BERT4Rec):
    """RecBole's BERT4Rec, whose loss is 0/0 where no item of a batch is masked that it counts: it is 0 here.

    It counts no item that is the first of its history, so a batch of histories of one item has no target, and a small
    batch may have none by chance.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: ``mask_ratio`` leaves no place for a masked item.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        if self.mask_item_length < 1:
            raise ConfigError(
                f"mask_ratio: {self.mask_ratio} of MAX_ITEM_LIST_LENGTH: {self.max_seq_length} is less than one item "
                f"to mask; at least {1 / self.max_seq_length:.2g} is needed"
            )

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The mean loss of the masked items.

        With ``loss_type: BPR`` a masked item without a negative, in a history of all items there are, is not counted.

        Args:
            interaction: rows as ``MaskedHistories`` makes them.
        """
        counted = interaction[self.MASK_INDEX] > 0
        if self.loss_type == "BPR":
            counted &= interaction[self.NEG_ITEMS] > 0
        self.loss_parts = counted.sum()
        # Of no target there is a loss of one that does not count: in all processes the gradients of weights come in one
        # order, in which DeepSpeed adds them up.
        weight = float(bool(counted.any()))
        if not weight:
            counted[:1, :1] = True
        interaction[self.MASK_INDEX] = interaction[self.MASK_INDEX].clamp(min=1) * counted
        return super().calculate_loss(interaction) * weight

    def scoring_flops(self, rows: Interaction) -> float:
        """All items are scored at every place for a masked item, also where there is none."""
        return super().scoring_flops(rows) * self.mask_item_length
