"""What each user has in training, as sparse rows: what models read whose input is a user's row of the catalogue."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AutoEncoderMixin
from scipy import sparse
from torch import Tensor

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.memory import free_memory
from recbole_hllm.units import gigabytes

# Tables of a batch's rows and all items that a step holds at once, at least: rows, input, scores, log-probabilities
# and the gradients of the last two.
_TABLES_OF_A_STEP = 6


class UserItems:
    """A matrix of users and items, of which the rows of some users are asked for.

    Args:
        matrix: (n_users, n_items) of SciPy.
        device: of the rows.
    """

    def __init__(self, matrix: Any, device: torch.device) -> None:
        matrix = sparse.csr_matrix(matrix, dtype=np.float32)
        self.n_items = matrix.shape[1]
        arrays = (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data)
        self._begin, self._items, self._values = (torch.from_numpy(array).to(device) for array in arrays)

    def entries(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row (of these users), item and value of each entry of the rows of users (B,)."""
        begin, end = self._begin[users], self._begin[users + 1]
        counts = end - begin
        rows = torch.arange(len(users), device=users.device).repeat_interleave(counts)
        places = torch.arange(len(rows), device=users.device) + (begin - counts.cumsum(0) + counts)[rows]
        return rows, self._items[places], self._values[places]

    def dense(self, users: Tensor) -> Tensor:
        """(B, n_items) rows of users (B,)."""
        rows, items, values = self.entries(users)
        table = values.new_zeros(len(users), self.n_items)
        table[rows, items] = values
        return table

    def sparse(self, users: Tensor) -> Tensor:
        """(B, n_items) the same as a sparse tensor."""
        rows, items, values = self.entries(users)
        shape = (len(users), self.n_items)
        return torch.sparse_coo_tensor(torch.stack([rows, items]), values, shape, check_invariants=False)


def check_room(model: str, what: str, needed: float, device: torch.device, advice: str) -> None:
    """Raises ConfigError where a dense table does not fit into memory.

    Args:
        model: its name.
        what: the table, in words.
        needed: bytes, at least.
        device: that holds it.
        advice: what to do.
    """
    free = free_memory(device)
    if needed > free:
        raise ConfigError(
            f"{model}: {what} needs {gigabytes(needed)} at least, and {gigabytes(free)} are free; {advice}"
        )


class ReadsUserItems(AutoEncoderMixin):
    """RecBole's mixin of models that read a user's row of the catalogue, with sparse rows in place of a table as wide
    as the longest history, and a row of a training batch for each user. Stands before RecBole's class.

    An item that a user has several times counts once, as in RecBole.

    Raises:
        ConfigError: the rows of a batch do not fit into memory.
    """

    DRAWS_NEGATIVES = False  # the loss is over all items
    n_items: int
    device: torch.device
    USER_ID: str
    ITEM_ID: str

    def build_histroy_items(self, dataset: Any) -> None:
        """Keeps the training interactions; RecBole spells the name so."""
        rows = min(RunKeys.of(dataset.config).train_batch_size, dataset.user_num - 1)
        check_room(
            type(self).__name__,
            f"a batch of {rows:,} users with a number for each of {self.n_items - 1:,} items",
            4.0 * _TABLES_OF_A_STEP * rows * self.n_items,
            self.device,
            "take a smaller train_batch_size",
        )
        self.user_items = UserItems(self.rows_of(dataset), self.device)

    def rows_of(self, dataset: Any) -> Any:
        """(n_users, n_items) SciPy matrix of what is read: 1 for each item that a user has in training."""
        return dataset.inter_matrix(form="csr").astype(bool)

    def get_rating_matrix(self, user: Tensor) -> Tensor:
        """(B, n_items) dense rows of the users (B,)."""
        return self.user_items.dense(user)

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) score of each row's item."""
        scores = self.full_sort_predict(interaction).view(-1, self.n_items)
        return scores.gather(1, interaction[self.ITEM_ID][:, None])[:, 0]
