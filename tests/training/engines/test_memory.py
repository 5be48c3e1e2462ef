"""What each process holds: bytes of a number, as the strategies' papers count them, and as a training has them."""

import pytest
import torch
from torch import nn

from recbole_hllm.training.engines.masters import Masters
from recbole_hllm.training.engines.memory import Numbers, by_strategy, held, held_by_zero, held_in_evaluation

NUMBERS = Numbers(total=1000, trained=800, halved=600, halved_trained=500)


@pytest.fixture(name="model")
def new_model():
    """A table that a linear layer shares, a frozen and a trained linear layer, and a norm."""
    layers = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5), nn.Linear(4, 3), nn.Linear(4, 2), nn.LayerNorm(2))
    layers[1].weight = layers[0].weight
    layers[2].requires_grad_(False)
    return layers


def test_numbers_of_a_model(model):
    assert Numbers.of(model) == Numbers(20 + 5 + 15 + 10 + 4, 20 + 5 + 10 + 4, 12 + 8, 8)


def test_numbers_of_an_outline():
    with torch.device("meta"):
        assert Numbers.of(nn.Linear(4, 3)) == Numbers(15, 15, 12, 12)


@pytest.mark.parametrize("bf16", [False, True])
def test_one_process_holds_what_a_step_has(model, bf16):
    numbers = Numbers.of(model)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    masters = Masters(model, optimizer) if bf16 else None
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight) if weight.requires_grad else None
    if masters:
        masters.take_gradients()
    optimizer.step()
    weights = {weight.data_ptr(): weight for weight in model.parameters()}
    stepped = [weight for group in optimizer.param_groups for weight in group["params"]]
    copies = [weight for weight in stepped if weight.data_ptr() not in weights]
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    found = held(numbers, bf16)
    assert found.weights == _bytes(weights.values())
    assert found.gradients == _bytes(weight.grad for weight in stepped)
    assert found.optimizer == _bytes([*moments, *copies])
    assert found.in_cpu == 0


def test_ddp_keeps_room_for_gradients_of_the_weights_own_type():
    assert by_strategy(NUMBERS, False, 4)["ddp"] == held(NUMBERS, False)
    assert by_strategy(NUMBERS, True, 4)["ddp"].gradients == 4 * 800 + 2 * 500


def test_zero_shares_more_with_each_stage():
    assert vars(held_by_zero(NUMBERS, False, 1, 4)) == dict(weights=4000, gradients=3200, optimizer=2400, in_cpu=0)
    assert vars(held_by_zero(NUMBERS, True, 2, 4)) == dict(weights=2000, gradients=400, optimizer=2400, in_cpu=0)
    assert vars(held_by_zero(NUMBERS, False, 3, 4)) == dict(weights=1000, gradients=800, optimizer=2400, in_cpu=0)


def test_offload_moves_the_part_of_a_process():
    assert vars(held_by_zero(NUMBERS, False, 1, 4, True)) == dict(
        weights=4000, gradients=3200, optimizer=0, in_cpu=3200
    )
    assert vars(held_by_zero(NUMBERS, False, 2, 4, True)) == dict(weights=4000, gradients=0, optimizer=0, in_cpu=3200)
    assert vars(held_by_zero(NUMBERS, True, 3, 4, True)) == dict(weights=0, gradients=0, optimizer=0, in_cpu=3700)


def test_every_strategy_is_there_and_takes_less_than_the_one_before():
    found = by_strategy(NUMBERS, False, 8)
    assert list(found) == ["ddp", "stage 1", "stage 2", "stage 3", "stage 2, offload", "stage 3, offload"]
    sizes = [found[name].on_device for name in ("ddp", "stage 1", "stage 2", "stage 3", "stage 3, offload")]
    assert sizes == sorted(sizes, reverse=True)
    assert held_in_evaluation(NUMBERS, False) == 4000 and held_in_evaluation(NUMBERS, True) == 6000


def _bytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)
