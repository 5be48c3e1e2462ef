"""Products of each row with vectors of its own: as a sparse matrix and as copies, values and gradients."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.errors import ModelError
from recbole_hllm.nn import own_products as module
from recbole_hllm.nn.own_products import own_products, vectors_are_copied, with_all


def case(rows, own, vectors, seed):
    """An item may be several times a row's own, and some are nobody's."""
    random = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, 5, generator=random, dtype=torch.float64) for n in (rows, vectors))
    return left, right, torch.randint(vectors, (rows, own), generator=random)


@settings(max_examples=40)
@given(rows=st.integers(0, 6), own=st.integers(0, 6), vectors=st.integers(1, 60), seed=st.integers(0, 999))
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
    left, right, places = case(4, 3, 40, seed=0)
    copies = torch.einsum("pd,pkd->pk", left, F.embedding(places, right))
    monkeypatch.setattr(module.F, "embedding", lambda *_: pytest.fail("copied"))
    torch.testing.assert_close(own_products(left, right, places), copies)
    with pytest.raises(pytest.fail.Exception, match="copied"):
        own_products(left.to("meta"), right.to("meta"), places.to("meta"))


@pytest.mark.parametrize("vectors", [5, 40], ids=["all products", "sparse"])
def test_gradients_are_those_of_finite_differences(vectors):
    left, right, places = case(3, 4, vectors, seed=1)
    assert with_all(vectors, 4) == (vectors == 5)
    assert torch.autograd.gradcheck(
        lambda a, b: own_products(a, b, places), (left.requires_grad_(), right.requires_grad_())
    )
    for wanted in (0, 1):  # one of both is not trained
        parts = [part.detach().requires_grad_(number == wanted) for number, part in enumerate((left, right))]
        own_products(*parts, places).sum().backward()
        assert [part.grad is not None for part in parts] == [wanted == 0, wanted == 1]


def test_a_part_of_a_matrix():
    left, right, places = case(4, 3, 40, seed=2)
    wide = torch.cat([left, left], dim=1)
    made = own_products(wide[:, :5], right.T.contiguous().T, places)
    torch.testing.assert_close(made, own_products(left, right, places))


def test_nothing_is_warned_of():
    """In a process of its own: torch warns of sparse tensors once."""
    lines = [
        "import warnings, torch",
        "from recbole_hllm.nn.own_products import own_products",
        "warnings.simplefilter('error')",
        "left = torch.ones(2, 3, requires_grad=True)",
        "own_products(left, torch.ones(40, 3), torch.zeros(2, 4, dtype=torch.long)).sum().backward()",
        "print(left.grad)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0 and "4." in done.stdout, done.stderr


def test_a_second_derivative_is_refused():
    left, right, places = case(4, 3, 40, seed=3)
    products = own_products(left.requires_grad_(), right, places)
    with pytest.raises(ModelError, match="no second derivative; call backward without create_graph"):
        torch.autograd.grad(products.sum(), left, create_graph=True)


def test_a_backward_pass_under_autocast_is_that_without_it():
    left, right, places = (part.float() if part.is_floating_point() else part for part in case(4, 3, 40, seed=4))
    gradients = []
    for enabled in (False, True):
        leaves = [part.clone().requires_grad_() for part in (left, right)]
        products = own_products(*leaves, places).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            gradients.append(torch.autograd.grad(products, leaves))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(("device", "vectors", "copied"), [("cpu", 40, False), ("cuda", 40, True), ("cuda", 18, False)])
def test_what_is_copied(device, vectors, copied):
    assert vectors_are_copied(torch.device(device), vectors, 3) == copied
