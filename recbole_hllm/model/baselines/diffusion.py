"""RecBole's diffusion models, DiffRec and L-DiffRec (arXiv 2304.04971), which restore a user's row of the catalogue."""

from typing import Any

import numpy as np
from recbole.model.general_recommender import DiffRec as RecBoleDiffRec
from recbole.model.general_recommender import LDiffRec as RecBoleLDiffRec
from scipy import sparse

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.recbole_models import recbole_values
from recbole_hllm.model.base.user_items import ReadsUserItems


class DiffusedRows(ReadsUserItems):
    """Rows that a diffusion model of RecBole restores, weighed by time with ``time-aware``. Stands before RecBole's
    class.

    The losses of the last batches, by which steps of the diffusion are drawn, are kept in a checkpoint.
    """

    other_parameter_name = ("Lt_history", "Lt_count")
    time_aware: bool
    w_min: float
    w_max: float

    def rows_of(self, dataset: Any) -> Any:
        """With ``time-aware`` a user's items weigh from ``w_min``, the first, to ``w_max``, the last (section 3.3);
        of one that the user has several times the last counts."""
        if not self.time_aware:
            return super().rows_of(dataset)
        owners, positions = dataset.training_positions.at(np.arange(len(dataset.training_positions)))
        users, items = dataset.sequences.users_of(owners), dataset.sequences.items[positions].astype(np.int64)
        order = np.argsort(users, kind="stable")
        users, items = users[order], items[order]
        counts = np.unique(users, return_counts=True)[1]
        weights = np.concatenate([np.linspace(self.w_min, self.w_max, count) for count in counts])
        _, last = np.unique((users * dataset.item_num + items)[::-1], return_index=True)
        kept = len(users) - 1 - last
        shape = (dataset.user_num, dataset.item_num)
        return sparse.csr_matrix((weights[kept], (users[kept], items[kept])), shape)


class DiffRec(DiffusedRows, RecBoleDiffRec):
    """RecBole's DiffRec: noise is added to the row of a user and taken away again."""


class LDiffRec(DiffusedRows, RecBoleLDiffRec):
    """RecBole's L-DiffRec: the same with a code of the row, which an autoencoder makes.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: ``n_cate`` asks for groups of items, which RecBole reads from a pickle.
    """

    COUNTERS = ("update_count", "update_count_vae")  # steps so far, with which the weights of the losses change

    def __init__(self, config: Any, dataset: Any) -> None:
        (groups,) = recbole_values(config, "n_cate")
        if groups != 1:
            raise ConfigError(
                f"n_cate: {groups!r}: groups of items would be read from item_emb.npy as a pickle, which could hold "
                "commands; take 1"
            )
        super().__init__(config, dataset)
