import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.nn.losses import _SharedIds, clamp_logit_scale, info_nce, new_logit_scale


def case(n_targets, n_negatives, n_items, seed, dim=5, dtype=torch.float64):
    """Vectors of few distinct items, so that ids collide and distinct items may be close."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(n_items, dim, generator=generator, dtype=dtype)
    table[-1] = table[0] + 0.05 * table[-1]  # another item, nearly parallel to item 0
    outputs = torch.randn(n_targets, dim, generator=generator, dtype=dtype)
    target_ids = torch.randint(n_items, (n_targets,), generator=generator)
    negative_ids = torch.randint(n_items, (n_negatives,), generator=generator)
    return outputs, table[target_ids], table[negative_ids], target_ids, negative_ids


def slow_info_nce(outputs, targets, negatives, target_ids, negative_ids, logit_scale, nce_thres):
    """The loss of section 3.2, one pair at a time, in double precision."""
    losses, n_kept, ranks = [], [], []
    for h, target, target_id in zip(outputs, targets, target_ids, strict=True):
        positive = logit_scale.exp() * torch.dot(h, target) / (h.norm() * target.norm())
        logits = []
        for negative, negative_id in zip(negatives, negative_ids, strict=True):
            similarity = torch.dot(target, negative) / (target.norm() * negative.norm())
            if negative_id == target_id or (nce_thres is not None and similarity > nce_thres):
                continue
            logits.append(logit_scale.exp() * torch.dot(h, negative) / (h.norm() * negative.norm()))
        everything = torch.stack([positive, *logits])
        losses.append(-torch.log(positive.exp() / everything.exp().sum()))
        n_kept.append(len(logits))
        ranks.append(sum(logit > positive for logit in logits))
    accuracy = {k: sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5, 10, 50, 100)}
    return torch.stack(losses).mean(), sum(n_kept) / len(n_kept), accuracy


@settings(max_examples=40)
@given(
    n_targets=st.integers(1, 6),
    n_negatives=st.integers(1, 12),
    n_items=st.integers(2, 8),
    nce_thres=st.sampled_from([None, 0.99, 0.3]),
    scale=st.floats(0, math.log(100)),
    seed=st.integers(0, 10_000),
)
def test_equals_the_slow_formula(n_targets, n_negatives, n_items, nce_thres, scale, seed):
    vectors = case(n_targets, n_negatives, n_items, seed)
    scale = torch.tensor(scale, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (*vectors[:3], scale)]
    similarity = torch.cosine_similarity(vectors[1][:, None], vectors[2][None], -1)
    if nce_thres is not None and ((similarity - nce_thres).abs() < 1e-5).any():
        return  # which side of the threshold is a matter of rounding

    ours = info_nce(*leaves[:3], *vectors[3:], leaves[3], nce_thres)
    gradients = torch.autograd.grad(ours.loss, leaves)
    loss, surviving, accuracy = slow_info_nce(*leaves[:3], *vectors[3:], leaves[3], nce_thres)
    expected = torch.autograd.grad(loss, leaves, allow_unused=True)

    assert ours.loss.dtype == torch.float32
    assert ours.loss.item() == pytest.approx(loss.item(), rel=1e-5, abs=2e-5)
    assert ours.surviving.item() == pytest.approx(surviving)
    for gradient, leaf, slow in zip(gradients, leaves, expected, strict=True):
        slow = torch.zeros_like(leaf) if slow is None else slow
        torch.testing.assert_close(gradient, slow, rtol=1e-4, atol=1e-4)
    assert sorted(ours.accuracy) == [k for k in (1, 5, 10, 50, 100) if k <= n_negatives + 1]
    for k, value in ours.accuracy.items():
        assert value.item() == pytest.approx(accuracy[k])


def test_nearly_parallel_items_are_filtered_by_cosine_only_when_asked():
    outputs = torch.eye(3)[:1]
    targets = torch.tensor([[1.0, 0, 0]])
    negatives = torch.tensor([[1.0, 0.01, 0], [0, 1.0, 0], [2.0, 0, 0]])
    ids = torch.tensor([4]), torch.tensor([5, 6, 4])
    scale = torch.tensor(0.0)
    assert info_nce(outputs, targets, negatives, *ids, scale, nce_thres=0.99).surviving == 1
    assert info_nce(outputs, targets, negatives, *ids, scale, nce_thres=None).surviving == 2
    expected = math.log(1 + math.exp(0 - 1))
    assert info_nce(outputs, targets, negatives, *ids, scale).loss.item() == pytest.approx(expected)


def test_no_surviving_negative_gives_zero_loss_and_finite_gradients():
    leaves = [torch.ones(n, 4, requires_grad=True) for n in (2, 2, 3)]
    scale = torch.tensor(math.log(100), requires_grad=True)
    result = info_nce(*leaves, torch.tensor([1, 2]), torch.tensor([3, 4, 5]), scale)
    result.loss.backward()
    assert result.loss.item() == 0 and result.surviving == 0
    assert all(leaf.grad.isfinite().all() for leaf in (*leaves, scale))
    assert scale.grad == 0


@pytest.mark.parametrize(("n_targets", "n_negatives"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_to_compare(n_targets, n_negatives):
    leaves = [torch.randn(n, 4, requires_grad=True) for n in (n_targets, n_targets, n_negatives)]
    scale = torch.tensor(1.0, requires_grad=True)
    ids = torch.zeros(n_targets).long(), torch.ones(n_negatives).long()
    result = info_nce(*leaves, *ids, scale)
    result.loss.backward()
    assert result.loss.item() == 0 and result.surviving == 0
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in (*leaves, scale))
    assert all(value.isfinite() for value in result.accuracy.values())


@pytest.mark.parametrize(("n_targets", "n_negatives"), [(6, 9), (0, 9), (6, 0)])
@pytest.mark.parametrize("nce_thres", [None, 0.99, 0.3, -1.0])
def test_shared_negatives_are_everybodys_own(n_targets, n_negatives, nce_thres):
    """In blocks and all at once; -1 takes out all of them."""
    vectors = case(n_targets, n_negatives, 5, seed=3)
    scale, results = torch.tensor(2.0, dtype=torch.float64), []
    for own in (False, True):
        leaves = [part.clone().requires_grad_() for part in (*vectors[:3], scale)]
        ids, places = vectors[4], None
        if own:
            ids, places = (numbers.expand(n_targets, -1) for numbers in (ids, torch.arange(n_negatives)))
        result = info_nce(*leaves[:3], vectors[3], ids, leaves[3], nce_thres, places=places)
        results.append((result, torch.autograd.grad(result.loss, leaves)))
    (shared, gradients), (own, expected) = results
    torch.testing.assert_close(shared.loss, own.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
    assert shared.surviving == own.surviving and shared.accuracy == own.accuracy
    assert nce_thres != -1 or (shared.surviving == 0 and shared.loss == 0)


@settings(max_examples=40)
@given(wanted=st.lists(st.integers(0, 6), max_size=8), ids=st.lists(st.integers(0, 6), max_size=12))
def test_equal_ids_are_found_among_the_shared(wanted, ids):
    rows, columns = _SharedIds(torch.tensor(ids, dtype=torch.long)).places(torch.tensor(wanted, dtype=torch.long))
    found = sorted(zip(rows.tolist(), columns.tolist(), strict=True))
    assert found == [(row, place) for row, this in enumerate(wanted) for place, item in enumerate(ids) if this == item]


def test_bfloat16_inputs_under_autocast_are_computed_in_float32():
    vectors = case(4, 9, 8, seed=1, dtype=torch.float32)
    rounded = [x.bfloat16() for x in vectors[:3]]
    scale = torch.tensor(math.log(1 / 0.07))
    expected = info_nce(*(x.float() for x in rounded), *vectors[3:], scale).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(*rounded, *vectors[3:], scale).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


def test_statistics_carry_no_gradient():
    vectors = case(4, 9, 8, seed=1)
    result = info_nce(vectors[0].requires_grad_(), *vectors[1:], torch.tensor(1.0))
    assert result.loss.requires_grad
    assert not result.surviving.requires_grad
    assert not any(value.requires_grad for value in result.accuracy.values())


def test_logit_scale_starts_at_the_papers_temperature():
    assert new_logit_scale().item() == pytest.approx(math.log(1 / 0.07))


@pytest.mark.parametrize(("before", "after"), [(-0.5, 0), (2.0, 2.0), (5.0, math.log(100))])
def test_clamp_is_in_place_and_keeps_the_parameter(before, after):
    parameter = torch.nn.Parameter(torch.tensor(before))
    assert clamp_logit_scale(parameter) is parameter
    assert parameter.item() == pytest.approx(after)
    assert parameter.requires_grad and parameter.is_leaf
