"""What ItemKNN, AsymKNN and SLIMElastic share: a sparse matrix of weights, found once, scores rows of interactions."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType, ModelType
from scipy import sparse
from torch import Tensor

from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.user_items import ScoresUserItems, counted


class SparseSimilarity(ScoresUserItems):
    """Scores are rows of users' items times weights between items, or rows of weights between users times the training
    interactions. Stands before RecBole's class.

    The weights are found when the model is made, and kept in a checkpoint as three arrays; a checkpoint that is loaded
    brings its own.

    Attributes:
        interactions: (n_users, n_items) SciPy matrix of the training interactions, float32.
        of_users: the weights are between users.
    """

    type = ModelType.TRADITIONAL
    input_type = InputType.POINTWISE
    other_parameter_name = ("weight_rows", "weight_columns", "weight_values")
    interactions: Any
    of_users = False
    ITEM_ID: str
    device: torch.device

    def prepare(self, config: Any, dataset: Any, weights: Weights) -> None:
        """Called at the end of a constructor: finds the weights, or leaves them to a checkpoint.

        Args:
            config: the run's Config.
            dataset: the training part of a SequenceDataset.
            weights: what is read for them.
        """
        self.choose_items(config)
        self.fake_loss = torch.nn.Parameter(torch.zeros(1))  # an optimizer wants a parameter
        self.interactions = dataset.inter_matrix(form="csr").astype(np.float32)
        size = self.interactions.shape[0 if self.of_users else 1]
        self.keep(self.find() if weights.are_read else sparse.csr_matrix((size, size), dtype=np.float32))

    def find(self) -> Any:
        """The weights, a square SciPy matrix of items, or of users."""
        raise NotImplementedError

    def keep(self, found: Any) -> None:
        """Takes a SciPy matrix as the weights."""
        found = sparse.csr_matrix(found, dtype=np.float32)
        self.weight_rows = torch.from_numpy(found.indptr.astype(np.int64))
        self.weight_columns = torch.from_numpy(found.indices.astype(np.int64))
        self.weight_values = torch.from_numpy(found.data)

    def weights(self) -> Any:
        """The weights as a SciPy matrix."""
        values, columns, rows = (
            part.cpu().numpy() for part in (self.weight_values, self.weight_columns, self.weight_rows)
        )
        return sparse.csr_matrix((values, columns, rows), shape=(len(rows) - 1, len(rows) - 1))

    def inference_parameters(self) -> int:
        """The weights that are not 0."""
        return len(self.weight_values)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """A loss of 0: nothing is trained."""
        return self.fake_loss.sum() * 0

    def rows(self, users: Tensor) -> Any:
        """(B, n_items) SciPy matrix of what users, as ``UserItems`` takes them, have."""
        if users.dim() == 1:
            return self.interactions[users.numpy()]
        rows, items, counts = (part.numpy() for part in counted(users, self.interactions.shape[1]))
        return sparse.csr_matrix((counts, (rows, items)), (len(users), self.interactions.shape[1]))

    def table(self, users: Tensor) -> np.ndarray:
        """(B, n_items) score of every item for such users."""
        if self.of_users:
            return (self.weights()[users.numpy()] @ self.interactions).toarray()
        return (self.rows(users) @ self.weights()).toarray()

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, n_items) score of every item; ``interaction`` names the users, or what they had."""
        return torch.from_numpy(self.table(self.users_of(interaction).cpu())).to(self.device)

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) score of each row's item."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None])[:, 0]
