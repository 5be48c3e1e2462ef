"""DGCF: RecBole's, for batches of any size."""

from typing import Any, ClassVar

from recbole.model.general_recommender import DGCF as RecBoleDGCF


class DGCF(RecBoleDGCF):
    """RecBole's DGCF, whose loss correlates factors over users and items drawn for each batch, as many of either as
    the larger of both has for a batch: at least one here, and at most all of the smaller.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
    """

    AUTOCASTS: ClassVar[bool] = False  # its products are of sparse matrices
    cor_batch_size: int

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.cor_batch_size = min(max(self.cor_batch_size, 1), self.n_users, self.n_items)
