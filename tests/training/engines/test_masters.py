"""Weights in bf16 with masters in float32."""

import pytest
import torch
from torch import nn

from recbole_hllm.errors import ConfigError
from recbole_hllm.training.engines.masters import Masters


def built(trained=True):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[1].requires_grad_(trained)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
    return model, optimizer


def test_linear_weights_alone_are_halved():
    model, optimizer = built(trained=False)
    before = [weight.detach().clone() for weight in model.parameters()]
    masters = Masters(model, optimizer)
    kinds = {name: weight.dtype for name, weight in model.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == torch.bfloat16} == {"1.weight", "3.weight"}
    assert [weight is model[3].weight for weight, _ in masters.pairs] == [True]
    assert all(weight.dtype == torch.float32 for group in optimizer.param_groups for weight in group["params"])
    assert torch.equal(masters.pairs[0][1], before[-2])


def test_small_steps_are_not_lost():
    """A step of 1e-4 on weights near 1 is below bf16's rounding of 2 ** -8."""
    model, optimizer = built()
    masters = Masters(model, optimizer)
    weight, master = masters.pairs[-1]
    with torch.no_grad():
        master.fill_(1.0)
    masters.write_back()
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        masters.take_gradients()
        assert weight.grad is None and master.grad.dtype == torch.float32
        optimizer.step()
        optimizer.zero_grad()
        masters.write_back()
    torch.testing.assert_close(master, torch.full_like(master, 0.99), rtol=0, atol=1e-5)
    assert torch.equal(weight, master.bfloat16()) and weight[0, 0].item() < 1


def test_small_gradients_are_not_lost():
    """300 and 1 are added up in float32: bf16 has no number between 300 and 302."""
    model, optimizer = built()
    masters = Masters(model, optimizer)
    weight, master = masters.pairs[0]
    for value in (300.0, 1.0):
        weight.grad = torch.full_like(weight, value)
        masters.take_gradients()
    assert torch.equal(master.grad, torch.full_like(master, 301.0)) and weight.grad is None


def test_what_is_loaded_while_masters_show_is_theirs():
    model, optimizer = built()
    masters = Masters(model, optimizer)
    weight, master = masters.pairs[0]
    masters.show()
    assert weight.dtype == torch.float32
    model.load_state_dict({name: value * 0 + 0.1 for name, value in model.state_dict().items()})
    masters.hide()
    assert weight.dtype == torch.bfloat16
    assert torch.equal(master, torch.full_like(master, 0.1)) and torch.equal(weight, master.bfloat16())


def test_a_weight_that_is_a_table_too_stays():
    model, optimizer = built()
    tied = nn.Linear(4, 5, bias=False)
    tied.weight = model[0].weight
    model.append(tied)
    Masters(model, optimizer)
    assert tied.weight.dtype == torch.float32


def test_a_run(prepare):
    keys = {"precision": "bf16", "weights": "bf16", "epochs": 3, "clip_grad_norm": {"max_norm": 1.0}}
    prepared, plain = prepare("HLLM", **keys), prepare("HLLM", folder="plain", **keys | {"weights": "fp32"})
    assert sum(w.dtype == torch.bfloat16 for w in prepared.model.parameters()) > 5
    for each in (prepared, plain):
        each.score = each.trainer.fit(each.train, each.valid, show_progress=False)[0]
        each.state = each.model.state_dict()
    for name, value in plain.state.items():
        torch.testing.assert_close(prepared.state[name].float(), value, rtol=0.02, atol=0.02)
    with pytest.raises(ConfigError, match="weights: bf16 is for precision: bf16, and not fp32"):
        prepare("HLLM", folder="refused", weights="bf16")
