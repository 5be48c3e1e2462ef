import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.nn.losses import info_nce
from recbole_hllm.nn.negatives import CrossBatchMemory, FurtherNegatives, Negatives, log_q_bias, once_each


def drawn(n, n_items=9, dim=4, seed=0):
    """n negatives of few items, whose vectors have gradients."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, n_items, (n,), generator=generator)
    return Negatives(ids, torch.randn(n, dim, generator=generator).requires_grad_())


@settings(max_examples=40)
@given(shape=st.sampled_from([(0, 4), (3, 0), (3, 4), (5,)]), n_items=st.integers(2, 50), seed=st.integers(0, 99))
def test_items_once_each_and_their_places(shape, n_items, seed):
    ids = torch.randint(n_items, shape, generator=torch.Generator().manual_seed(seed))
    distinct, places = once_each(ids, n_items)
    assert distinct.tolist() == sorted(set(ids.flatten().tolist()))
    assert places.shape == ids.shape and torch.equal(distinct[places], ids)


def slow_loss(outputs, targets, negatives, target_ids, negative_ids, scale, target_bias, negative_bias):
    """The corrected softmax of each target, one pair at a time, in double precision."""
    losses = []
    for output, target, own, bias in zip(outputs, targets, target_ids, target_bias, strict=True):
        positive = scale.exp() * torch.cosine_similarity(output, target, dim=0) + bias
        logits = [
            scale.exp() * torch.cosine_similarity(output, negative, dim=0) + added
            for negative, number, added in zip(negatives, negative_ids, negative_bias, strict=True)
            if number != own
        ]
        losses.append(torch.stack([positive, *logits]).logsumexp(0) - positive)
    return torch.stack(losses).mean()


@settings(max_examples=25, deadline=None)
@given(
    n_targets=st.integers(1, 5), n_negatives=st.integers(0, 9), seed=st.integers(0, 1000), scale=st.floats(0, 4.6)
)
def test_biases_are_added_to_the_logits(n_targets, n_negatives, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((n_targets, 4), (n_targets, 4), (n_negatives, 4), (n_targets,), (n_negatives,))
    leaves = [torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]
    leaves.append(torch.tensor(scale, dtype=torch.float64, requires_grad=True))
    ids = [torch.randint(4, (n,), generator=generator) for n in (n_targets, n_negatives)]
    outputs, targets, negatives, target_bias, negative_bias, scale = leaves
    ours = info_nce(outputs, targets, negatives, *ids, scale, None, target_bias, negative_bias).loss
    slow = slow_loss(outputs, targets, negatives, *ids, scale, target_bias, negative_bias)
    assert ours.item() == pytest.approx(slow.item(), rel=1e-5, abs=2e-5)
    found = torch.autograd.grad(ours, leaves, allow_unused=True, materialize_grads=True)
    expected = torch.autograd.grad(slow, leaves, allow_unused=True, materialize_grads=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


# ---- logQ ----


def test_bias_is_zero_for_items_drawn_as_often_as_in_a_uniform_draw():
    assert log_q_bias(torch.tensor([7, 3, 3, 3])).tolist() == pytest.approx([0, 0, 0, 0], abs=1e-6)


def test_bias_of_popular_rare_and_unseen_items():
    bias = log_q_bias(torch.tensor([0, 6, 2, 0, 0]))
    assert bias.tolist() == pytest.approx([0, -math.log(0.75 * 4), -math.log(0.25 * 4), 0, 0])


def test_in_batch_loss_is_the_formula_of_yi_et_al():
    torch.manual_seed(3)
    target_ids, counts = torch.tensor([1, 2, 2, 4]), torch.tensor([0, 1, 5, 3, 2])
    outputs, table, none = torch.randn(4, 6), torch.randn(5, 6), torch.zeros(0, dtype=torch.long)
    further = FurtherNegatives(log_q_bias(counts), None)
    negatives, bias = further(Negatives(none, torch.zeros(0, 6)), target_ids, table[target_ids])
    ids, vectors = negatives.ids, negatives.vectors
    own, scale = table[target_ids], torch.tensor(1.0)
    loss = info_nce(outputs, own, vectors, target_ids, ids, scale, None, bias, negatives.bias).loss
    expected = []
    for output, own in zip(outputs.double(), target_ids, strict=True):
        corrected = {}  # of every place of the batch that is not the same item again
        for place, item in enumerate(target_ids.tolist()):
            cosine = torch.cosine_similarity(output, table[item].double(), dim=0)
            corrected[place] = (item, math.e * cosine - math.log(counts[item] / counts.sum()))
        positive = next(logit for item, logit in corrected.values() if item == own)
        others = [logit for item, logit in corrected.values() if item != own]
        expected.append(torch.stack([positive, *others]).logsumexp(0) - positive)
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


# ---- earlier batches ----


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 12), steps=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_memory_holds_the_last_ones_without_gradients(size, steps):
    memory, everything = CrossBatchMemory(size, 4), []
    for number, count in enumerate(steps):
        now = drawn(count, seed=number)
        memory.keep(now)
        everything += [(int(item), vector.tolist(), number) for item, vector in zip(now.ids, now.vectors, strict=True)]
    kept = memory.remembered(drawn(2))
    assert not kept.vectors.requires_grad
    expected = everything[-size:]
    assert kept.ids.tolist() == [item for item, _, _ in expected]
    assert kept.vectors.tolist() == [vector for _, vector, _ in expected]
    ages = [len(steps) - number for _, _, number in expected]
    assert memory.age().item() == pytest.approx(sum(ages) / len(ages) if ages else 0)


def test_memory_is_corrected_to_the_moments_of_the_present():
    memory, now = CrossBatchMemory(50, 4, correct=True), drawn(30, seed=2)
    old = Negatives(torch.arange(1, 41), 3 * torch.randn(40, 4) + 5)
    memory.keep(old)
    vectors = memory.remembered(now).vectors
    for one, other in zip(torch.std_mean(vectors, 0), torch.std_mean(now.vectors, 0), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    scale, shift = now.vectors.std(0) / old.vectors.std(0), now.vectors.mean(0)
    torch.testing.assert_close(vectors, (old.vectors - old.vectors.mean(0)) * scale + shift, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(memory.vectors[-40:], old.vectors)  # what is kept is as it was


def test_one_present_negative_has_no_spread_to_match():
    memory = CrossBatchMemory(8, 4, correct=True)
    memory.keep(drawn(5))
    torch.testing.assert_close(memory.remembered(drawn(1)).vectors, drawn(5).vectors.detach())


def test_memory_goes_on_from_a_checkpoint():
    one, other = CrossBatchMemory(6, 4), CrossBatchMemory(6, 4)
    one.keep(drawn(4))
    other.load_state_dict(one.state_dict())
    for memory in (one, other):
        memory.keep(drawn(3, seed=5))
    assert torch.equal(one.vectors, other.vectors) and one.age() == other.age() > 0


def test_further_negatives_follow_the_drawn_ones():
    further = FurtherNegatives(log_q_bias(torch.tensor([0, 1, 2, 3])), CrossBatchMemory(10, 4))
    target_ids, targets = torch.tensor([1, 3]), torch.randn(2, 4, requires_grad=True)
    first, bias = further(drawn(3), target_ids, targets)
    assert torch.equal(first.ids, torch.cat([drawn(3).ids, target_ids]))
    assert first.bias.tolist() == pytest.approx([0, 0, 0, *bias.tolist()]) and bias[0] > 0 > bias[1]
    second, _ = further(drawn(1, seed=4), target_ids, targets)
    assert torch.equal(second.ids, torch.cat([drawn(1, seed=4).ids, target_ids, first.ids]))
    assert torch.equal(second.bias[3:], first.bias)
    second.vectors.sum().backward()
    assert torch.equal(targets.grad, torch.ones(2, 4))  # of the present ones alone, once each
    assert further.terms()["memory_age"] == pytest.approx((5 * 2 + 3 * 1) / 8)
