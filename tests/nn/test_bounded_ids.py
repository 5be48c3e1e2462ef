"""The part of an item's id beside its text."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.nn.bounded_ids import BoundedIds

COUNTS = torch.tensor([0, 4, 0, 1, 9, 2])


def part(bound=0.5, min_count=1, size=1.0):
    torch.manual_seed(0)
    ids = BoundedIds(COUNTS, 8, bound, min_count)
    with torch.no_grad():
        ids.rows.weight[1:] = size * torch.nn.functional.normalize(torch.randn(5, 8), dim=-1)
    return ids


def test_it_begins_with_the_vectors_as_they_are():
    vectors = torch.randn(5, 8)
    assert torch.equal(BoundedIds(COUNTS, 8, 0.5)(torch.arange(1, 6), vectors), vectors)


@pytest.mark.parametrize(("size", "added"), [(0.2, 0.2), (0.5, 0.5), (7.0, 0.5)])
def test_the_plain_formula(size, added):
    ids, vectors = torch.tensor([4, 1, 4]), 3 * torch.randn(3, 8)
    found = part(0.5, size=size)(ids, vectors)
    for place, item in enumerate(ids):
        row = part(0.5, size=size).rows.weight[item]
        expected = vectors[place] + vectors[place].norm() * added * row / row.norm()
        torch.testing.assert_close(found[place], expected)


def test_items_that_are_rare_keep_their_text():
    vectors, ids = torch.randn(5, 8), torch.arange(1, 6)
    for min_count, changed in ((1, {1, 3, 4, 5}), (2, {1, 4, 5}), (5, {4})):
        found = part(min_count=min_count)(ids, vectors)
        assert {item for item in range(1, 6) if not torch.equal(found[item - 1], vectors[item - 1])} == changed


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 3), st.floats(0, 100), st.floats(0.01, 100))
def test_no_step_leaves_the_bound(bound, size, length):
    vectors = length * torch.randn(5, 8)
    found = part(bound, size=size)(torch.arange(1, 6), vectors)
    assert ((found - vectors).norm(dim=-1) <= bound * vectors.norm(dim=-1) * (1 + 1e-4) + 1e-6).all()
    if bound < 1:
        cosine = torch.cosine_similarity(found, vectors, dim=-1)
        assert (cosine >= math.cos(math.asin(bound)) - 1e-4).all()


def test_gradients_are_finite_and_of_seen_items_only():
    ids = BoundedIds(COUNTS, 8, 0.5)  # rows of 0, where a norm has no gradient
    vectors = torch.randn(5, 8, requires_grad=True)
    (ids(torch.arange(1, 6), vectors) * torch.randn(5, 8)).sum().backward()
    assert ids.rows.weight.grad.isfinite().all() and vectors.grad.isfinite().all()
    assert ids.rows.weight.grad.any(1).tolist() == [False, True, False, True, True, True]


def test_what_the_training_data_say_is_in_no_checkpoint():
    assert list(BoundedIds(COUNTS, 8, 0.5).state_dict()) == ["rows.weight"]
