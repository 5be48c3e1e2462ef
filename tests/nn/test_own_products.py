"""Products of each row with vectors of its own: as a sparse matrix and as copies, values and gradients."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.nn import own_products as module
from recbole_hllm.nn.own_products import own_products


def case(rows, own, vectors, seed):
    """An item may be several times a row's own, and some are nobody's."""
    random = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, 5, generator=random, dtype=torch.float64) for n in (rows, vectors))
    return left, right, torch.randint(vectors, (rows, own), generator=random)


@settings(max_examples=40)
@given(rows=st.integers(0, 6), own=st.integers(0, 6), vectors=st.integers(1, 9), seed=st.integers(0, 999))
def test_equals_one_product_at_a_time(rows, own, vectors, seed):
    left, right, places = case(rows, own, vectors, seed)
    weights = torch.randn(rows, own, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    results = []
    for products in (own_products, lambda a, b, which: torch.stack([b[w] @ v for v, w in zip(a, which, strict=True)])):
        leaves = [part.clone().requires_grad_() for part in (left, right)]
        made = products(*leaves, places) if rows else own_products(*leaves, places)
        gradients = torch.autograd.grad((made * weights).sum(), leaves, allow_unused=True, materialize_grads=True)
        results.append((made.detach(), *gradients))
    assert results[0][0].shape == (rows, own)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_cpu_copies_no_vector(monkeypatch):
    """What a GPU computes gives the same."""
    left, right, places = case(4, 3, 7, seed=0)
    copies = torch.einsum("pd,pkd->pk", left, F.embedding(places, right))
    monkeypatch.setattr(module.F, "embedding", lambda *_: pytest.fail("copied"))
    torch.testing.assert_close(own_products(left, right, places), copies)
    with pytest.raises(pytest.fail.Exception, match="copied"):
        own_products(left.to("meta"), right.to("meta"), places.to("meta"))


def test_gradients_are_those_of_finite_differences():
    left, right, places = case(3, 4, 5, seed=1)
    assert torch.autograd.gradcheck(
        lambda a, b: own_products(a, b, places), (left.requires_grad_(), right.requires_grad_())
    )
    for wanted in (0, 1):  # one of both is not trained
        parts = [part.detach().requires_grad_(number == wanted) for number, part in enumerate((left, right))]
        own_products(*parts, places).sum().backward()
        assert [part.grad is not None for part in parts] == [wanted == 0, wanted == 1]


def test_a_part_of_a_matrix_and_no_warning():
    left, right, places = case(4, 3, 7, seed=2)
    wide = torch.cat([left, left], dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = own_products(wide[:, :5], right.T.contiguous().T, places[:, :])
    torch.testing.assert_close(made, own_products(left, right, places))
