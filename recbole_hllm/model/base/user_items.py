"""What each user has, as sparse rows: what models read whose input is a user's row of the catalogue."""

from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AutoEncoderMixin
from scipy import sparse
from torch import Tensor

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.keys.user_items import UserItemsKeys, scores_histories
from recbole_hllm.data.rows.columns import WHOLE_HISTORY
from recbole_hllm.errors import ConfigError
from recbole_hllm.memory import free_memory
from recbole_hllm.units import gigabytes

# Tables of a batch's rows and all items that a step holds at once, at least: rows, input, scores, log-probabilities
# and the gradients of the last two.
_TABLES_OF_A_STEP = 6


class UserItems:
    """Rows of users: of those in a matrix, asked for by their ids (B,), and of any others, by what they had, (B, W)
    items padded with 0.

    Args:
        matrix: (n_users, n_items) of SciPy.
        device: of the rows.
        once: an item that a user has several times counts once; else as often as the user has it.
    """

    def __init__(self, matrix: Any, device: torch.device, once: bool = False) -> None:
        matrix = sparse.csr_matrix(matrix, dtype=bool if once else np.float32).astype(np.float32)
        self.n_items, self.once = matrix.shape[1], once
        arrays = (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data)
        self._begin, self._items, self._values = (torch.from_numpy(array).to(device) for array in arrays)

    def entries(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row (of these users), item and value of each entry of the rows of some users."""
        if users.dim() == 2:
            rows, items, counts = counted(users, self.n_items)
            return rows, items, counts.clamp(max=1) if self.once else counts
        begin, end = self._begin[users], self._begin[users + 1]
        counts = end - begin
        rows = torch.arange(len(users), device=users.device).repeat_interleave(counts)
        places = torch.arange(len(rows), device=users.device) + (begin - counts.cumsum(0) + counts)[rows]
        return rows, self._items[places], self._values[places]

    def dense(self, users: Tensor) -> Tensor:
        """(B, n_items) rows of some users."""
        rows, items, values = self.entries(users)
        table = values.new_zeros(len(users), self.n_items)
        table[rows, items] = values
        return table

    def sparse(self, users: Tensor) -> Tensor:
        """(B, n_items) the same as a sparse tensor."""
        rows, items, values = self.entries(users)
        shape = (len(users), self.n_items)
        return torch.sparse_coo_tensor(torch.stack([rows, items]), values, shape, check_invariants=False)


def counted(histories: Tensor, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row, item and number, float32, of each different item in (B, W) histories, padded with 0; in rising order."""
    rows, places = histories.nonzero(as_tuple=True)
    pairs, counts = torch.unique(rows * n_items + histories[rows, places], return_counts=True)
    return pairs // n_items, pairs % n_items, counts.float()


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


class ScoresUserItems:
    """A model that knows a user by a row of items alone: what the user has in training or, with ``score_from:
    history``, all that the user had before the target. Stands before RecBole's class.

    Attributes:
        from_history: which of the two an evaluation scores.
    """

    Keys: ClassVar[type[RunKeys]] = UserItemsKeys
    from_history: bool
    USER_ID: str

    def choose_items(self, config: Any) -> None:
        """Called in a constructor."""
        self.from_history = scores_histories(config)

    def users_of(self, interaction: Interaction) -> Tensor:
        """The users of rows to score, as ``UserItems`` takes them: (B,) ids, or (B, W) items that they had."""
        return interaction[WHOLE_HISTORY if self.from_history else self.USER_ID]


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
        self.user_items = self.read_items(dataset)

    def read_items(self, dataset: Any) -> UserItems:
        """What each user has in training."""
        return UserItems(dataset.inter_matrix(form="csr"), self.device, once=True)

    def get_rating_matrix(self, user: Tensor) -> Tensor:
        """(B, n_items) dense rows of some users."""
        return self.user_items.dense(user)

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) score of each row's item."""
        scores = self.full_sort_predict(interaction).view(-1, self.n_items)
        return scores.gather(1, interaction[self.ITEM_ID][:, None])[:, 0]


class ScoresRowsAlone(ScoresUserItems, ReadsUserItems):
    """One of these models without a vector of the user. Stands before RecBole's class."""

    def build_histroy_items(self, dataset: Any) -> None:
        """Keeps the training interactions, and which items are scored."""
        super().build_histroy_items(dataset)
        self.choose_items(dataset.config)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B * n_items,) or (B, n_items) score of every item, as RecBole's, which hands the column of users to
        ``get_rating_matrix`` and reads no other."""
        return super().full_sort_predict(Interaction({self.USER_ID: self.users_of(interaction)}))
