"""RecBole's models over the graph of users and items, which all but SGL make by what SciPy 1.13 removed."""

import numpy as np
import torch
from recbole.model.general_recommender import GCMC as RecBoleGCMC
from recbole.model.general_recommender import NGCF as RecBoleNGCF
from recbole.model.general_recommender import SGL as RecBoleSGL
from recbole.model.general_recommender import LightGCN as RecBoleLightGCN
from recbole.model.general_recommender import SpectralCF as RecBoleSpectralCF
from torch import Tensor

from recbole_hllm.model.base.interaction_graph import OverGraph, normalised_adjacency


class LightGCN(OverGraph, RecBoleLightGCN):
    """RecBole's LightGCN (arXiv 2002.02126): vectors of users and items are means over steps of propagation."""

    def get_norm_adj_mat(self) -> Tensor:
        """(n_users + n_items, n_users + n_items) sparse: each edge divided by the roots of both its degrees."""
        return normalised_adjacency(self.interaction_matrix)


class NGCF(OverGraph, RecBoleNGCF):
    """RecBole's NGCF (arXiv 1905.08108): each step of propagation has weights of its own."""

    def get_norm_adj_mat(self) -> Tensor:
        """(n_users + n_items, n_users + n_items) sparse: each edge divided by the roots of both its degrees."""
        return normalised_adjacency(self.interaction_matrix)


class SGL(OverGraph, RecBoleSGL):
    """RecBole's SGL (arXiv 2010.10783): LightGCN that also contrasts two views of the graph with parts left out."""


class GCMC(OverGraph, RecBoleGCMC):
    """RecBole's GCMC (arXiv 1706.02263): an encoder over the graph, a bilinear decoder over pairs."""

    def get_norm_adj_mat(self) -> Tensor:
        """(n_users + n_items, n_users + n_items) sparse: each edge divided by the roots of both its degrees."""
        return normalised_adjacency(self.interaction_matrix)


class SpectralCF(OverGraph, RecBoleSpectralCF):
    """RecBole's SpectralCF (arXiv 1808.10523): convolutions in the spectral domain of the graph."""

    def get_laplacian_matrix(self) -> Tensor:
        """(n_users + n_items, n_users + n_items) sparse: the identity less each edge divided by its row's degree."""
        size = self.n_users + self.n_items
        return self.get_eye_mat(size) - normalised_adjacency(self.interaction_matrix, left=-1.0, right=0.0)

    def get_eye_mat(self, num: int) -> Tensor:
        """(num, num) sparse identity."""
        places = torch.from_numpy(np.tile(np.arange(num), (2, 1)))
        return torch.sparse_coo_tensor(places, torch.ones(num), (num, num), check_invariants=False)
