"""RecBole's models of nearest neighbours, their weights in arrays: ItemKNN and AsymKNN."""

from typing import Any

import numpy as np
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.general_recommender import AsymKNN as RecBoleAsymKNN
from recbole.model.general_recommender import ItemKNN as RecBoleItemKNN
from recbole.model.general_recommender.asymknn import ComputeSimilarity as AsymmetricSimilarity
from recbole.model.general_recommender.itemknn import ComputeSimilarity
from torch import Tensor

from recbole_hllm.config.keys.user_items import UserItemsKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import CatalogueScorer, ReadsWeights, Weights
from recbole_hllm.model.base.recbole_models import recbole_values
from recbole_hllm.model.base.sparse_similarity import SparseSimilarity

# Added to a denominator, as RecBole does.
_SMALL = 1e-6


class Neighbours(SparseSimilarity):
    """Weights of the ``k`` nearest items of each, or with ``knn_method: user`` of the nearest users. Stands before
    RecBole's class.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
        weights: whether neighbours are looked for, or left to a checkpoint.

    Raises:
        ConfigError: a value that cannot be used.
    """

    k: int
    method: str

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        GeneralRecommender.__init__(self, config, dataset)  # RecBole's classes compute, and keep SciPy matrices
        self.check_keys(config)
        self.k, self.method = recbole_values(config, "k", "knn_method")
        self.read_further_keys(config)
        self.of_users = self.method == "user"
        self.prepare(config, dataset, weights)

    def read_further_keys(self, config: Any) -> None:
        """Keeps the values of keys that the other model does not have."""
        raise NotImplementedError

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that cannot be used."""
        k, method = recbole_values(config, "k", "knn_method")
        if not isinstance(k, int) or k < 1:
            raise ConfigError(f"k: {k!r} must be a whole number, 1 at least")
        if method not in ("item", "user"):
            raise ConfigError(f"knn_method: {method!r} is neither item nor user")
        if method == "user" and UserItemsKeys.of(config).score_from == "history":
            raise ConfigError(
                "score_from: history: with knn_method: user scores come from a user's neighbours, who are found in "
                "training; take knn_method: item, or leave score_from out"
            )


class ItemKNN(Neighbours, RecBoleItemKNN, ReadsWeights, CatalogueScorer):
    """RecBole's ItemKNN, whose weights a checkpoint can hold: the cosines of each item's ``k`` nearest items, or with
    ``knn_method: user`` of each user's nearest users. Scores are computed when they are asked for."""

    def read_further_keys(self, config: Any) -> None:
        """``shrink``."""
        (self.shrink,) = recbole_values(config, "shrink")

    def find(self) -> Any:
        """The cosines, with ``shrink`` added to the product of the norms."""
        similarity = ComputeSimilarity(self.interactions, self.k, self.shrink, self.method)
        return similarity.compute_similarity()[1]


class AsymKNN(Neighbours, RecBoleAsymKNN, ReadsWeights, CatalogueScorer):
    """RecBole's AsymKNN (Aiolli, RecSys 2013), whose weights a checkpoint can hold; scores are divided by norms of
    both sides and raised to the power ``q`` when they are asked for, and never stand in one table."""

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that cannot be used."""
        super().check_keys(config)
        q, alpha, beta = recbole_values(config, "q", "alpha", "beta")
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}: {value!r} must be from 0 to 1")
        if not isinstance(q, int) or q < 1:
            raise ConfigError(f"q: {q!r} must be a whole number, 1 at least")

    def read_further_keys(self, config: Any) -> None:
        """``q``, ``alpha`` and ``beta``."""
        self.q, self.alpha, self.beta = recbole_values(config, "q", "alpha", "beta")

    def find(self) -> Any:
        """The asymmetric cosines."""
        similarity = AsymmetricSimilarity(self.interactions, self.k, self.alpha, self.method)
        return similarity.compute_asym_similarity()[1]

    def table(self, users: Tensor) -> np.ndarray:
        """(B, n_items) score of every item for users, as ``UserItems`` takes them."""
        weights = _squares(self.weights())
        if self.of_users:
            rows, columns = weights[users.numpy()], _squares(self.interactions.T)
        else:
            rows, columns = _squares(self.rows(users)), weights
        norms = np.outer(rows**self.beta, columns ** (1 - self.beta))
        return ((super().table(users) / (norms + _SMALL)) ** self.q).astype(np.float32)


def _squares(matrix: Any) -> np.ndarray:
    """(R,) sum of squares of each row."""
    return np.asarray(matrix.power(2).sum(axis=1)).ravel()
