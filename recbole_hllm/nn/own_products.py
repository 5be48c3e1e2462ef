"""Products of each row with vectors of its own, as a loss needs them whose negatives are drawn for each position."""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def own_products(left: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
    """The products of each row with those vectors that are its own.

    On a CPU they are the entries of a sparse matrix, so that no vector is copied to each place that it has; what that
    saves is in benchmarks/README.md. Elsewhere they are copied.

    Args:
        left: (P, D).
        vectors: (U, D), of the same type.
        places: (P, K) which of the U are each row's own, the same one several times perhaps.

    Returns:
        (P, K), with gradients of both; on a CPU it has no second derivative.
    """
    if len(vectors) <= places.shape[1]:  # the products with all of them are no more
        return (left @ vectors.T).gather(1, places)
    if left.device.type != "cpu" or not places.numel():
        return torch.einsum("pd,pkd->pk", left, F.embedding(places, vectors))
    return _OwnProducts.apply(left.contiguous(), vectors.contiguous(), places)


class _OwnProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(left, vectors, places)
        wanted = _sparse(places, torch.zeros_like(places, dtype=left.dtype), len(vectors))
        made = torch.sparse.sampled_addmm(wanted, left, vectors.T, beta=0).values().view_as(places)
        return made.clone()  # no view, so that it may be changed in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        left, vectors, places = ctx.saved_tensors
        weights, (of_left, of_vectors, _) = _sparse(places, gradient, len(vectors)), ctx.needs_input_grad
        return weights @ vectors if of_left else None, weights.t() @ left if of_vectors else None, None


def _sparse(places: Tensor, values: Tensor, columns: int) -> Tensor:
    """(P, columns) with the (P, K) values at their places."""
    ends = torch.arange(0, places.numel() + 1, places.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        size, parts = (len(places), columns), (places.reshape(-1), values.reshape(-1))
        return torch.sparse_csr_tensor(ends, *parts, size, check_invariants=False)
