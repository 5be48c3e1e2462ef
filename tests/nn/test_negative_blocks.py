import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.errors import ModelError
from recbole_hllm.nn import negative_blocks
from recbole_hllm.nn.negative_blocks import contrast_in_blocks


def case(n_positions, n_negatives, seed, dim=3, dtype=torch.float64):
    """Outputs, positives and negatives; which negatives do not count for which position, all of them for the first."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (n_positions, dim), (n_positions,), (n_negatives, dim)
    vectors = [4 * torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
    mask = torch.rand(n_positions, n_negatives, generator=generator) < 0.3
    mask[:1] = True
    return [part.requires_grad_() for part in vectors], mask


def removing(mask):
    def remove(logits, part):
        logits[mask[part]] = torch.finfo(logits.dtype).min
        return mask[part].sum()

    return remove


def plain(outputs, positive, negatives, mask):
    """All logits at once."""
    logits = (outputs @ negatives.T).masked_fill(mask, -torch.inf)
    loss = (torch.cat([positive[:, None], logits], dim=1).logsumexp(-1) - positive).sum()
    return loss, (logits > positive[:, None]).sum(-1)


@settings(max_examples=50)
@given(
    n_positions=st.integers(0, 7),
    n_negatives=st.integers(0, 9),
    at_once=st.integers(1, 8),
    seed=st.integers(0, 10_000),
)
def test_equals_the_plain_formula(n_positions, n_negatives, at_once, seed):
    leaves, mask = case(n_positions, n_negatives, seed)
    ours = contrast_in_blocks(*leaves, removing(mask), at_once)
    loss, n_before = plain(*leaves, mask)
    assert ours.loss.item() == pytest.approx(loss.item(), abs=1e-9, rel=1e-9)
    assert ours.removed == mask.sum() and ours.n_before.tolist() == n_before.tolist()
    gradients = torch.autograd.grad(3 * ours.loss, leaves)
    for ours, expected in zip(gradients, torch.autograd.grad(3 * loss, leaves), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("at_once", [1, 2, None])
def test_gradients_are_those_of_small_differences(at_once):
    leaves, mask = case(5, 4, seed=1)
    assert torch.autograd.gradcheck(lambda *parts: contrast_in_blocks(*parts, removing(mask), at_once).loss, leaves)


def test_float32_is_near_the_plain_formula_in_double_precision():
    leaves, mask = case(40, 300, seed=2, dim=16, dtype=torch.float32)
    ours = contrast_in_blocks(*leaves, removing(mask), 7).loss
    doubles = [part.detach().double().requires_grad_() for part in leaves]
    expected = plain(*doubles, mask)[0]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(expected, doubles), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-4)


def test_large_logits_overflow_nothing():
    outputs, negatives = torch.tensor([[200.0], [-200.0]]), torch.tensor([[1.0], [0.5], [-1.0]])
    leaves = [part.requires_grad_() for part in (outputs, torch.tensor([-200.0, 200.0]), negatives)]
    result = contrast_in_blocks(*leaves, lambda logits, part: 0)
    assert result.loss.item() == pytest.approx(400 + math.log(2)) and result.n_before.tolist() == [2, 0]
    assert all(part.isfinite().all() for part in torch.autograd.grad(result.loss, leaves))


@pytest.mark.parametrize(("most", "least", "sizes"), [(12, 1, [3, 3, 1]), (12, 5, [5, 2]), (2, 1, [1] * 7)])
def test_a_block_has_some_positions_and_all_negatives(monkeypatch, most, least, sizes):
    monkeypatch.setattr(negative_blocks, "_MAX_LOGITS", most)
    monkeypatch.setattr(negative_blocks, "_LEAST_POSITIONS", least)
    leaves, _ = case(7, 4, seed=3)
    seen = []
    contrast_in_blocks(*leaves, lambda logits, part: seen.append(tuple(logits.shape)) or 0)
    assert seen == [(size, 4) for size in sizes]


def test_gradients_are_all_that_is_kept_for_the_backward_pass():
    (outputs, positive, negatives), mask = case(50, 60, seed=4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda part: kept.append(part.numel()) or part, lambda part: part):
        contrast_in_blocks(outputs, positive, negatives.detach(), removing(mask), 8)
    assert sum(kept) == outputs.numel() + positive.numel()
    with torch.no_grad():
        assert not contrast_in_blocks(outputs, positive, negatives, removing(mask), 8).loss.requires_grad


def test_there_is_no_second_derivative():
    leaves, mask = case(3, 4, seed=5)
    with pytest.raises(ModelError, match="no second derivative"):
        torch.autograd.grad(contrast_in_blocks(*leaves, removing(mask)).loss, leaves, create_graph=True)
