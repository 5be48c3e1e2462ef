"""EASE: the linear autoencoder with a closed form, its weights in a tensor."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import EASE as RecBoleEASE
from torch import Tensor

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.contract import ReadsWeights, Weights
from recbole_hllm.model.base.recbole_models import recbole_values
from recbole_hllm.model.base.servable import Servable
from recbole_hllm.model.base.user_items import ScoresUserItems, UserItems, check_room
from recbole_hllm.serving.served import ServedBlend, ServedTable

# Tables of all pairs of items that the closed form holds at once, at least: the Gram matrix, its factor, the inverse.
_TABLES = 3


class EASE(ScoresUserItems, RecBoleEASE, ReadsWeights, Servable):
    """RecBole's EASE (arXiv 1905.03375), whose weights a checkpoint can hold.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
        weights: whether the closed form is computed, or left to a checkpoint.

    Attributes:
        item_similarity: (n_items, n_items) weights of the items in a user's row, float32.

    Raises:
        ConfigError: all pairs of items do not fit into memory, or ``reg_weight`` leaves no solution.
    """

    other_parameter_name = ("item_similarity",)

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        super(RecBoleEASE, self).__init__(config, dataset)  # RecBole's own computes, and keeps SciPy matrices
        self.dummy_param = torch.nn.Parameter(torch.zeros(1))  # an optimizer wants a parameter
        check_room(
            "EASE",
            f"a number for each pair of {self.n_items - 1:,} items",
            4.0 * _TABLES * self.n_items**2,
            self.device,
            "leave rare items out with item_inter_num_interval, or take SLIMElastic or ItemKNN",
        )
        interactions = dataset.inter_matrix(form="csr")
        self.user_items = UserItems(interactions, self.device)
        self.choose_items(config)
        (strength,) = recbole_values(config, "reg_weight")
        if weights.are_read:
            self.item_similarity = closed_form(interactions, strength).to(self.device)
        else:
            self.item_similarity = torch.zeros(self.n_items, self.n_items)

    def inference_parameters(self) -> int:
        """A weight for each pair of items."""
        return self.n_items**2

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """A loss of 0: nothing is trained."""
        return self.dummy_param.sum() * 0

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, n_items) score of every item; ``interaction`` names the users, or what they had."""
        return torch.sparse.mm(self.user_items.sparse(self.users_of(interaction)), self.item_similarity)

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) score of each row's item."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None])[:, 0]

    def served(self) -> ServedBlend:
        """The weights of all pairs of items.

        Raises:
            ModelError: evaluations scored what users have in training, and not their histories.
        """
        if not self.from_history:
            raise ModelError(
                "EASE is exported with score_from: history, which scores the history it is given; with score_from: "
                "training its metrics are of something else"
            )
        return ServedBlend([ServedTable(self.item_similarity)], torch.ones(1, 1), [], 1)


def closed_form(interactions: Any, strength: float) -> Tensor:
    """(N, N) the weights B that minimise |X - XB|^2 + strength |B|^2 with a diagonal of 0 (equation 8).

    Args:
        interactions: (U, N) SciPy matrix X.
        strength: of the regularisation, above 0.

    Raises:
        ConfigError: there is no solution.
    """
    interactions = interactions.astype(np.float32)
    gram = torch.from_numpy((interactions.T @ interactions).toarray())
    gram.diagonal().add_(strength)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed or not strength > 0:
        raise ConfigError(f"reg_weight: EASE has no solution with {strength}; take a number above 0, such as 250")
    del gram
    inverse = torch.cholesky_inverse(factor)
    found = inverse.div_(-inverse.diagonal().clone())
    found.fill_diagonal_(0)
    return found
