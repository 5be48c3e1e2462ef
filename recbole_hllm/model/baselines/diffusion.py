"""RecBole's diffusion models, DiffRec and L-DiffRec (arXiv 2304.04971), which restore a user's row of the catalogue."""

from typing import Any

import numpy as np
import torch
from recbole.model.general_recommender import DiffRec as RecBoleDiffRec
from recbole.model.general_recommender import LDiffRec as RecBoleLDiffRec
from scipy import sparse
from torch import Tensor

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.recbole_models import recbole_values
from recbole_hllm.model.base.user_items import ScoresRowsAlone, UserItems


class DiffusedRows(ScoresRowsAlone):
    """Rows that a diffusion model of RecBole restores. Stands before RecBole's class.

    With ``time-aware`` a user's items weigh from ``w_min``, the first, to ``w_max``, the last (section 3.3); of one
    that the user has several times the last counts.

    The losses of the last batches, by which steps of the diffusion are drawn, are kept in a checkpoint.
    """

    other_parameter_name = ("Lt_history", "Lt_count")
    time_aware: bool
    w_min: float
    w_max: float

    def read_items(self, dataset: Any) -> UserItems:
        """What each user has in training, weighed."""
        if not self.time_aware:
            return super().read_items(dataset)
        owners, positions = dataset.training_positions.at(np.arange(len(dataset.training_positions)))
        users, items = dataset.sequences.users_of(owners), dataset.sequences.items[positions].astype(np.int64)
        order = np.argsort(users, kind="stable")
        return self._weighed(users[order], items[order], dataset.user_num)

    def get_rating_matrix(self, user: Tensor) -> Tensor:
        """(B, n_items) dense rows of some users, weighed."""
        if user.dim() == 1 or not self.time_aware:
            return super().get_rating_matrix(user)
        histories = user.cpu().numpy()
        rows, places = histories.nonzero()
        weighed = self._weighed(rows, histories[rows, places], len(user))
        return weighed.dense(torch.arange(len(user), device=self.device))

    def _weighed(self, users: np.ndarray, items: np.ndarray, n_users: int) -> UserItems:
        """Of (T,) users in rising order and what each had, oldest first."""
        counts = np.unique(users, return_counts=True)[1]
        weights = np.concatenate([[], *(np.linspace(self.w_min, self.w_max, count) for count in counts)])
        _, last = np.unique((users * self.n_items + items)[::-1], return_index=True)
        kept = len(users) - 1 - last
        matrix = sparse.csr_matrix((weights[kept], (users[kept], items[kept])), (n_users, self.n_items))
        return UserItems(matrix, self.device)


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
