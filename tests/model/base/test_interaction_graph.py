"""The normalised graph against a dense formula."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recbole_hllm.model.base.interaction_graph import normalised_adjacency


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.sampled_from([(-0.5, -0.5), (-1.0, 0.0)]))
def test_against_the_dense_formula(seed, n_users, n_items, powers):
    counts = np.random.default_rng(seed).integers(0, 3, (n_users, n_items))
    found = normalised_adjacency(sparse.coo_matrix(counts), *powers).to_dense().numpy()
    edges = (counts > 0).astype(float)
    whole = np.block([[np.zeros((n_users, n_users)), edges], [edges.T, np.zeros((n_items, n_items))]])
    with np.errstate(divide="ignore"):
        left, right = (np.diag(np.nan_to_num(whole.sum(1) ** power, posinf=0)) for power in powers)
    np.testing.assert_allclose(found, left @ whole @ right, rtol=1e-6)


def test_what_is_repeated_is_one_edge():
    repeated = sparse.coo_matrix((np.ones(3), ([0, 0, 1], [0, 0, 1])), (2, 2))
    found = normalised_adjacency(repeated)
    assert found.is_coalesced() and found.dtype == torch.float32
    assert found.to_dense().tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert found.values().tolist() == pytest.approx([1] * 4)
