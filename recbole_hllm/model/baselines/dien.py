"""DIEN: RecBole's, for users without a history too."""

from torch import Tensor

from recbole_hllm.model.base.recbole_models import sequential_recommender


class DIEN(sequential_recommender.DIEN):
    """RecBole's DIEN, whose recurrent layers refuse an empty history: it counts as one padding item here."""

    def forward(
        self, user: Tensor, item_seq: Tensor, neg_item_seq: Tensor, item_seq_len: Tensor, next_items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits and the auxiliary loss of a batch.

        Args:
            user, next_items: (B,) ids of users and candidates.
            item_seq, neg_item_seq: (B, L) items of the history and one other item beside each, padded with 0.
            item_seq_len: (B,) lengths, 0 allowed.

        Returns:
            (B,) logits and the scalar loss, 0 where no history has two items.
        """
        logits, auxiliary = super().forward(user, item_seq, neg_item_seq, item_seq_len.clamp(min=1), next_items)
        return logits, auxiliary if bool((item_seq_len > 1).any()) else auxiliary.new_zeros(())
