"""S3Rec: RecBole's, with both of its stages in one training."""

from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.loss import BPRLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as binary_loss

from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.model.base.recbole_models import recbole_values, sequential_recommender

PRETRAIN, FINETUNE = "pretrain", "finetune"
# Of a training in two parts, the second from a pickle of the first.
_OF_TWO_RUNS = ("train_stage", "pre_model_path", "save_step")
_LOSSES = {"CE": nn.CrossEntropyLoss, "BPR": BPRLoss}


class S3Rec(sequential_recommender.S3Rec):
    """RecBole's S3Rec (arXiv 2008.07873): SASRec that first learns which attributes, items and segments go together.

    The first ``pretrain_epochs`` epochs are the paper's four tasks (section 4.2) on the histories of the training rows,
    read in both directions; no validation follows them. Then the weights are those that SASRec's training starts from,
    which ``epochs`` and early stopping are about. The optimizer and the schedule of the learning rate go on.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Raises:
        DataError: no item has an attribute.
    """

    COUNTERS = ("train_stage",)
    attributes: Tensor  # (N, K) of each item, padded with 0

    def __init__(self, config: Any, dataset: Any) -> None:
        column, self.pretrain_epochs = recbole_values(config, "item_attribute", "pretrain_epochs")
        if dataset.num(column) < 2:  # 0 is none
            raise DataError(
                f"data set '{dataset.dataset_name}': no item has a value in the column '{column}', which "
                "item_attribute names"
            )
        super().__init__(config, dataset)
        if self.loss_type not in _LOSSES:
            raise NotImplementedError(f"loss_type: {self.loss_type}")  # a config refuses it before
        self.loss_fct = _LOSSES[self.loss_type]()  # of the second stage; RecBole's code has one for each
        attributes = torch.as_tensor(self.item_feat[self.FEATURE_FIELD]).view(dataset.item_num, -1)
        self.register_buffer("attributes", attributes, persistent=False)
        self.train_stage = FINETUNE

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for keys of two runs, and for epochs that are no number."""
        values, defaults = recbole_values(config, *_OF_TWO_RUNS), config.internal_config_dict
        given = [key for key, value in zip(_OF_TWO_RUNS, values, strict=True) if value != defaults[key]]
        if given:
            raise ConfigError(
                f"{', '.join(given)}: both stages are one training here, the first of pretrain_epochs, the second of "
                "epochs: leave it out"
            )
        (epochs,) = recbole_values(config, "pretrain_epochs")
        if not isinstance(epochs, int) or epochs < 0:
            raise ConfigError(f"pretrain_epochs: {epochs!r} must be a whole number, 0 or more")

    # ---- stages ----

    def pretraining_epochs(self) -> int:
        """Those of the first stage."""
        return int(self.pretrain_epochs)

    def begin_epoch(self, epoch: int) -> None:
        """The first stage, or the second."""
        self.train_stage = PRETRAIN if epoch < self.pretrain_epochs else FINETUNE

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss of the stage."""
        if self.train_stage == FINETUNE:
            return super().calculate_loss(interaction)
        lengths = interaction[self.ITEM_SEQ_LEN]
        items = interaction[self.ITEM_SEQ][:, : max(int(lengths.max()), 1)]
        return self.loss_of_items(items, *self.masked(items)) + self.loss_of_segments(items, *segments(items, lengths))

    # ---- the first stage ----

    def masked(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) which items of the histories are masked, and an item that is not in its history for each."""
        others, there = items_beside(items, self.mask_token)
        masked = (items != 0) & (torch.rand(items.shape, device=items.device) < self.mask_ratio)
        return masked & there[:, None], others

    def loss_of_items(self, items: Tensor, masked: Tensor, others: Tensor) -> Tensor:
        """Associated attributes, masked items and masked attributes (equations 5 to 7), summed over a history's items.

        Args:
            items: (B, L) histories, padded with 0.
            masked: (B, L) which of them are masked.
            others: (B, L) an item to compare each with.

        Returns:
            The weighted sum of the three, a mean over the histories.
        """
        outputs = self.forward(items.masked_fill(masked, self.mask_token))
        seen = (items != 0) & ~masked
        associated = self.attribute_loss(self.aap_norm(outputs[seen]), items[seen])
        attributes = self.attribute_loss(self.map_norm(outputs[masked]), items[masked])
        right, wrong = (
            self._masked_item_prediction(outputs[masked], self.item_embedding(of[masked])) for of in (items, others)
        )
        of_items = ranking_loss(right, wrong)
        total = self.aap_weight * associated + self.mip_weight * of_items + self.map_weight * attributes
        return total / len(items)

    def attribute_loss(self, outputs: Tensor, items: Tensor) -> Tensor:
        """Binary cross-entropy of each attribute, summed, of (P, D) outputs at (P,) items."""
        numbers = self.attributes[items]
        has = outputs.new_zeros(len(items), self.n_features + 1).scatter_(1, numbers, 1.0)[:, 1:]  # 0 is none
        return binary_loss(outputs @ self.feature_embedding.weight.T, has, reduction="sum")

    def loss_of_segments(self, items: Tensor, inside: Tensor, other: Tensor) -> Tensor:
        """Whether a segment belongs to the rest of a history (equation 8), a weighted mean over the histories.

        Args:
            items: (B, L) histories, padded with 0.
            inside: (B, L) the segment of each; empty where the history has one item.
            other: (B, L) items of a segment of another place, where ``inside`` is.
        """
        outside = items.masked_fill(items != 0, self.mask_token)
        alone = [torch.where(inside, segment, outside) for segment in (items, other)]
        read = [items.masked_fill(inside, self.mask_token), *alone]
        last = (items != 0).sum(1).clamp(min=1) - 1
        context, right, wrong = self.gather_indexes(self.forward(torch.cat(read)), last.repeat(3)).chunk(3)
        longer = inside.any(1)
        scores = (self._segment_prediction(context[longer], segment[longer]) for segment in (right, wrong))
        return self.sp_weight * ranking_loss(*scores) / len(items)

    # ---- costs ----

    def inference_parameters(self) -> int:
        """All but those of the first stage alone."""
        alone = [self.feature_embedding, self.aap_norm, self.mip_norm, self.map_norm, self.sp_norm]
        return super().inference_parameters() - sum(weight.numel() for part in alone for weight in part.parameters())

    def positions_read(self, rows: Interaction) -> int | None:
        """In the first stage a history is read four times. The four layers of the first stage alone, an eighth or so of
        the encoder's weights, are counted at each of these places, and in the second stage, too."""
        return 4 * int(rows[self.ITEM_SEQ_LEN].sum()) if self.train_stage == PRETRAIN else None

    def scoring_flops(self, rows: Interaction) -> float:
        """In the first stage of the products of an item's output with all attributes, forward and backward."""
        if self.train_stage == FINETUNE:
            return super().scoring_flops(rows)
        return 6.0 * int(rows[self.ITEM_SEQ_LEN].sum()) * self.n_features * self.hidden_size


def ranking_loss(right: Tensor, wrong: Tensor) -> Tensor:
    """The paper's contrast of two probabilities: -log sigma of their difference, summed."""
    distance = right - wrong
    return binary_loss(distance, torch.ones_like(distance), reduction="sum")


def items_beside(histories: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Draws items that are not in a history, all alike.

    Args:
        histories: (B, L) item ids, padded with 0.
        n_items: ids are below this.

    Returns:
        (B, L) ids, and (B,) whether there are such items; ids of a row without any mean nothing.
    """
    known = histories.sort(1).values
    again = torch.zeros_like(known, dtype=torch.bool)
    again[:, 1:] = known[:, 1:] == known[:, :-1]
    place = torch.arange(1, known.shape[1] + 1, device=known.device)
    known = known.masked_fill(again | (known == 0), n_items + len(place)).sort(1).values
    free = n_items - 1 - (known < n_items).sum(1)
    rank = (torch.rand(known.shape, device=known.device) * free[:, None]).long()
    # The free item of a rank comes after as many known ones as have no more than that many free ones before them.
    before = torch.searchsorted((known - place).contiguous(), rank, right=True)
    return (rank + 1 + before).clamp(max=n_items - 1), free > 0


def segments(items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Draws a segment of each history, half of it at most, and one as long from all histories of the batch.

    Args:
        items: (B, L) histories, padded with 0.
        lengths: (B,) of the histories.

    Returns:
        (B, L) which items are in the segment, none of a history of one item; (B, L) at these places the other segment.
    """
    draw = torch.rand(3, len(items), device=items.device)
    size = (1 + (draw[0] * (lengths // 2)).long()) * (lengths > 1)
    start = (draw[1] * (lengths - size + 1)).long()
    place = torch.arange(items.shape[1], device=items.device)
    inside = (place >= start[:, None]) & (place < (start + size)[:, None])
    every = items[items != 0]
    begin = (draw[2] * (len(every) - size + 1)).long()
    return inside, every[((begin - start)[:, None] + place).clamp(0, len(every) - 1)]
