"""NCL: RecBole's, with the clusters of scikit-learn."""

from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import NCL as RecBoleNCL
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import normalize

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.interaction_graph import OverGraph, normalised_adjacency
from recbole_hllm.model.base.recbole_models import recbole_values

# Most iterations of k-means, as many as Faiss makes, which RecBole's code calls on a GPU.
_ITERATIONS = 25


class NCL(OverGraph, RecBoleNCL):
    """RecBole's NCL (arXiv 2202.06200): LightGCN that also contrasts users and items with those two steps away in the
    graph, and with the centre of their cluster.

    Clusters are found anew every ``m_step`` epochs, of at most as many centres as there are users or items, and have
    no part in the loss of the first ``warm_up_step`` epochs.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: ``m_step`` or ``num_clusters`` is no whole number, 1 at least.
    """

    COUNTERS = ("warming_up",)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.seed = RunKeys.of(config).seed
        self.m_step, self.warm_up_step = recbole_values(config, "m_step", "warm_up_step")
        for name, value in (("m_step", self.m_step), ("num_clusters", self.k)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: {value!r} must be a whole number, 1 at least")
        self.warming_up = True
        self.other_parameter_name += ["user_centroids", "user_2cluster", "item_centroids", "item_2cluster"]

    def get_norm_adj_mat(self) -> Tensor:
        """(n_users + n_items, n_users + n_items) sparse: each edge divided by the roots of both its degrees."""
        return normalised_adjacency(self.interaction_matrix)

    def begin_epoch(self, epoch: int) -> None:
        """Finds the clusters where this epoch needs new ones."""
        self.warming_up = epoch < self.warm_up_step
        if not self.warming_up and (epoch % self.m_step == 0 or self.user_centroids is None):
            self.e_step()

    def run_kmeans(self, x: Any) -> tuple[Tensor, Tensor]:
        """(K, D) centres of length 1 and the (N,) cluster of each of the vectors (N, D)."""
        means = KMeans(min(self.k, len(x)), init="random", n_init=1, max_iter=_ITERATIONS, random_state=self.seed)
        clusters = means.fit_predict(x)
        centres = normalize(torch.from_numpy(means.cluster_centers_).to(self.device, torch.float32), dim=1)
        return centres, torch.from_numpy(clusters).to(self.device, torch.long)

    def ProtoNCE_loss(self, node_embedding: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """The loss of the clusters; 0 while there are none."""
        if self.warming_up:
            return node_embedding.new_zeros(())
        return super().ProtoNCE_loss(node_embedding, user, item)

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """Ranking, neighbours in the graph, and clusters; each a part of the loss."""
        ranking, neighbours, clusters = super().calculate_loss(interaction)
        return (ranking, neighbours) if self.warming_up else (ranking, neighbours, clusters)
