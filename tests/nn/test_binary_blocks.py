"""Generalised binary cross-entropy against its formula, pair by pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.nn.binary_blocks import binary_in_blocks
from recbole_hllm.nn.losses import Calibration, info_nce

SCALE = torch.tensor(0.5, dtype=torch.float64)


def published_beta(t, n_negatives, n_items):
    """Equation of arXiv 2308.07192, section 5, as it stands there."""
    rate = n_negatives / (n_items - 1)
    return rate * (t * (1 - 1 / rate) + 1 / rate)


def slow(outputs, targets, negatives, target_ids, negative_ids, beta, cosine):
    """Mean over positions; (K,) ids of the (K, D) negatives, or (P, K) ids of each position's own in a (U, D) table."""
    losses = []
    for place, (output, target) in enumerate(zip(outputs, targets, strict=True)):
        own, ids = negatives, negative_ids
        if ids.dim() == 2:
            own, ids = negatives[ids[place]], ids[place]
        vectors = torch.stack([target, *(v for v, one in zip(own, ids, strict=True) if one != target_ids[place])])
        scores = SCALE.exp() * (torch.cosine_similarity(vectors, output[None]) if cosine else vectors @ output)
        likely = torch.sigmoid(scores)
        losses.append(-(beta * likely[0].log() + (1 - likely[1:]).log().sum()) / (len(own) + 1))
    return torch.stack(losses).mean()


def case(own, seed, n_items=6, n_negatives=7):
    random = torch.Generator().manual_seed(seed)
    table = torch.randn(n_items, 4, generator=random, dtype=torch.float64)
    target_ids = torch.randint(n_items, (5,), generator=random)
    negative_ids = torch.randint(n_items, (5, n_negatives) if own else (n_negatives,), generator=random)
    outputs = torch.randn(5, 4, generator=random, dtype=torch.float64)
    return outputs, table[target_ids], table if own else table[negative_ids], target_ids, negative_ids


@settings(max_examples=30)
@given(own=st.booleans(), cosine=st.booleans(), t=st.sampled_from([0.0, 0.75, 1.0]), seed=st.integers(0, 1000))
def test_equals_the_formula(own, cosine, t, seed):
    vectors = case(own, seed)
    calibration = Calibration(t, n_items=20)
    leaves = [x.clone().requires_grad_() for x in vectors[:3]]

    further = {"places": vectors[4] if own else None, "cosine": cosine, "calibration": calibration}
    ours = info_nce(*leaves, *vectors[3:], SCALE, None, **further)
    expected = slow(*leaves, *vectors[3:], published_beta(t, 7, 20), cosine)

    assert ours.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, wanted in zip(*(torch.autograd.grad(loss, leaves) for loss in (ours.loss, expected)), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("t", "beta"), [(0.0, 1.0), (1.0, 0.25), (0.75, 0.4375)])
def test_beta(t, beta):
    """t = 0: plain binary cross-entropy; t = 1: the sampling rate."""
    assert Calibration(t, n_items=101).beta(25) == pytest.approx(beta) == published_beta(t, 25, 101)


def test_beta_of_all_items_and_of_more():
    assert Calibration(1.0, n_items=5).beta(4) == Calibration(1.0, n_items=5).beta(9) == 1
    assert Calibration(1.0, n_items=1).beta(3) == 1


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 99])
def test_blocks_are_one_block(own, at_once):
    outputs, targets, negatives, _, ids = case(own, 3)
    results = []
    for size in (5, at_once):
        leaves = [x.clone().requires_grad_() for x in (outputs, negatives)]

        def remove(logits, part):  # the first negative of every second position
            rows = torch.arange(5)[part] % 2 == 0
            logits[rows, 0] = torch.finfo(logits.dtype).min
            return int(rows.sum())

        positive = (leaves[0] * targets).sum(-1) + 0.01  # no ties
        result = binary_in_blocks(leaves[0], positive, leaves[1], remove, ids if own else None, 0.3, size)
        results.append((*result, *torch.autograd.grad(result.loss, leaves)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert results[0][1] == 3


def test_no_position_at_all():
    result = info_nce(*(x[:0] for x in case(False, 0)[:2]), *_rest(), SCALE, calibration=Calibration(0.5, 9))
    assert result.loss == 0 and result.surviving == 0


def _rest():
    _, _, negatives, target_ids, negative_ids = case(False, 0)
    return negatives, target_ids[:0], negative_ids


@pytest.mark.parametrize("nce_thres", [None, 0.5])
def test_the_softmax_of_dot_products(nce_thres):
    outputs, targets, negatives, target_ids, negative_ids = case(False, 1)
    ours = info_nce(outputs, targets, negatives, target_ids, negative_ids, SCALE, nce_thres, cosine=False)
    losses = []
    for output, target, one in zip(outputs, targets, target_ids, strict=True):
        alike = torch.cosine_similarity(negatives, target[None])
        kept = negatives[(negative_ids != one) & (alike <= (math.inf if nce_thres is None else nce_thres))]
        logits = SCALE.exp() * torch.cat([target[None], kept]) @ output
        losses.append(-logits.log_softmax(0)[0])
    assert ours.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
