"""SLIMElastic: a sparse linear model of each item, its weights in arrays."""

import warnings
from typing import Any

import numpy as np
from recbole.model.general_recommender import SLIMElastic as RecBoleSLIMElastic
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import CatalogueScorer, ReadsWeights, Weights
from recbole_hllm.model.base.recbole_models import recbole_values
from recbole_hllm.model.base.sparse_similarity import SparseSimilarity


class SLIMElastic(SparseSimilarity, RecBoleSLIMElastic, ReadsWeights, CatalogueScorer):
    """RecBole's SLIM (Ning and Karypis, ICDM 2011) with scikit-learn's elastic net, whose weights a checkpoint can
    hold. The order in which coordinates are visited is drawn from the run's seed.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
        weights: whether the weights are found, or left to a checkpoint.

    Raises:
        ConfigError: ``alpha`` is below 0, or ``l1_ratio`` is not from 0 to 1.
    """

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        super(RecBoleSLIMElastic, self).__init__(config, dataset)  # RecBole's own computes, and keeps SciPy matrices
        self.alpha, self.l1_ratio = recbole_values(config, "alpha", "l1_ratio")
        self.hide_item, self.positive_only = recbole_values(config, "hide_item", "positive_only")
        self.seed = RunKeys.of(config).seed
        if not self.alpha >= 0 or not 0 <= self.l1_ratio <= 1:
            raise ConfigError(
                f"alpha: {self.alpha!r} must be at least 0, and l1_ratio: {self.l1_ratio!r} from 0 to 1"
            )
        self.prepare(config, dataset, weights)

    def find(self) -> Any:
        """One elastic net for each item: its column, from the columns of the others."""
        net = ElasticNet(
            alpha=self.alpha,
            l1_ratio=self.l1_ratio,
            positive=self.positive_only,
            fit_intercept=False,
            selection="random",
            max_iter=100,
            tol=1e-4,
            random_state=self.seed,
        )
        columns, found = sparse.csc_matrix(self.interactions), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=ConvergenceWarning)
            for item in range(columns.shape[1]):
                own = slice(*columns.indptr[item : item + 2])
                if own.start == own.stop:  # nobody has it: no weights
                    found.append(sparse.csr_matrix((1, columns.shape[1]), dtype=np.float32))
                    continue
                target, kept = columns[:, [item]].toarray().ravel(), columns.data[own].copy()
                if self.hide_item:
                    columns.data[own] = 0
                found.append(sparse.csr_matrix(net.fit(columns, target).sparse_coef_))
                columns.data[own] = kept
        return sparse.vstack(found).T
