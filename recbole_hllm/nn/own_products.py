"""Products of each row with vectors of its own, as a loss needs them whose negatives are drawn for each position."""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_hllm.errors import ModelError

# Vectors for each of a row's own, up to which the products with all of them cost least; see benchmarks/losses.py.
_DENSE = 6


def own_products(left: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
    """The products of each row with those vectors that are its own.

    On a CPU they are the entries of a sparse matrix, so that no vector is copied to each place that it has; what that
    saves is in benchmarks/README.md. Elsewhere vectors are copied. Of few vectors all products are made.

    Args:
        left: (P, D).
        vectors: (U, D), of the same type.
        places: (P, K) which of the U are each row's own, the same one several times perhaps.

    Returns:
        (P, K), with gradients of both.

    Raises:
        ModelError: in the backward pass on a CPU, where a second derivative is to be possible.
    """
    if with_all(len(vectors), places.shape[1]):
        return (left @ vectors.T).gather(1, places)
    if vectors_are_copied(left.device, len(vectors), places.shape[1]) or not places.numel():
        return torch.einsum("pd,pkd->pk", left, F.embedding(places, vectors))
    return _OwnProducts.apply(left.contiguous(), vectors.contiguous(), places)


def with_all(n_vectors: int, own: int) -> bool:
    """Whether each row is multiplied with all vectors, of which so many are its own."""
    return n_vectors <= _DENSE * own


def vectors_are_copied(device: torch.device, n_vectors: int, own: int) -> bool:
    """Whether each vector is copied to all its places."""
    return device.type != "cpu" and not with_all(n_vectors, own)


class _OwnProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(left, vectors, places)
        wanted = _sparse(places, torch.zeros_like(places, dtype=left.dtype), len(vectors))
        made = torch.sparse.sampled_addmm(wanted, left, vectors.T, beta=0).values().view_as(places)
        return made.clone()  # no view, so that it may be changed in place

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if torch.is_grad_enabled():  # sparse products of a graph would be silently wrong
            raise ModelError("products with own vectors have no second derivative; call backward without create_graph")
        left, vectors, places = ctx.saved_tensors
        of_left, of_vectors, _ = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):  # whose types have no sparse products
            weights = _sparse(places, gradient, len(vectors))
            return weights @ vectors if of_left else None, weights.t() @ left if of_vectors else None, None


def _sparse(places: Tensor, values: Tensor, columns: int) -> Tensor:
    """(P, columns) with the (P, K) values at their places."""
    ends = torch.arange(0, places.numel() + 1, places.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        size, parts = (len(places), columns), (places.reshape(-1), values.reshape(-1))
        return torch.sparse_csr_tensor(ends, *parts, size, check_invariants=False)
