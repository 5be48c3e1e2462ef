"""The graph of users and items: each interaction in training is an edge between the two."""

from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


class OverGraph:
    """A model that multiplies by the sparse matrix of the graph, which torch does in fp32 alone."""

    AUTOCASTS: ClassVar[bool] = False


def normalised_adjacency(interactions: Any, left: float = -0.5, right: float = -0.5) -> Tensor:
    """The adjacency matrix A of the graph with its rows and columns divided by powers of the degrees: D^left A D^right.

    Without arguments it is the symmetric normalisation of NGCF (arXiv 1905.08108, equation 8) and LightGCN
    (arXiv 2002.02126, equation 8).

    Args:
        interactions: (n_users, n_items) SciPy matrix; what is repeated is one edge.
        left, right: the powers.

    Returns:
        (n_users + n_items, n_users + n_items) sparse float32, users first. Who has no edge has an empty row.
    """
    edges = sparse.csr_matrix(interactions, dtype=bool).astype(np.float64)
    adjacency = sparse.bmat([[None, edges], [edges.T, None]], format="coo")
    degrees = np.maximum(np.bincount(adjacency.row, minlength=adjacency.shape[0]), 1).astype(np.float64)
    values = degrees[adjacency.row] ** left * degrees[adjacency.col] ** right
    places = torch.from_numpy(np.stack([adjacency.row, adjacency.col]).astype(np.int64))
    weights = torch.from_numpy(values.astype(np.float32))
    return torch.sparse_coo_tensor(places, weights, adjacency.shape, check_invariants=False).coalesce()
