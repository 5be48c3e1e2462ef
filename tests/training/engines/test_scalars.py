"""Scalars beside DeepSpeed: as in one process of torch, also where the loss changes them."""

import json
from importlib.util import find_spec

import pytest
import torch
from launched import launch_well
from recbole.utils import ModelType
from torch import nn

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.batches import Batch
from recbole_hllm.training.engines import build_engine
from recbole_hllm.training.engines.engine import LossOf
from recbole_hllm.training.engines.scalars import WithScalars

STEPS = 24


class Scaled(nn.Module):
    """A model whose scalar is pushed over its bound of 2.7 for half of the steps, and back then."""

    type, loss_parts, loss_terms = ModelType.SEQUENTIAL, None, {}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 1)
        self.scale = nn.Parameter(torch.tensor(2.6))
        self.used = []

    def calculate_loss(self, rows):
        """A scalar."""
        with torch.no_grad():
            self.scale.clamp_(max=2.7)
        self.used.append(self.scale.item())
        return self.scale * rows["push"].mean() + self.inner(rows["features"]).square().mean()


def rows_of(step):
    torch.manual_seed(step)
    return Batch({"push": torch.full((3,), -1.0 if step < STEPS // 2 else 1.0), "features": torch.randn(3, 4)})


def scales_of(settings):
    """The scalar that each step's loss has read, and what is left in the model; of two batches a step."""
    model = Scaled()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    engine = build_engine(model, optimizer, settings, False)
    for step in range(STEPS):
        for number in range(2):
            loss = engine.loss(rows_of(step), last=number == 1)
            engine.backward(loss, 0.5)
        engine.step()
    with engine.whole():
        kept = {name: value.clone() for name, value in model.state_dict().items()}
    return model.used[::2], kept


@pytest.fixture
def settings(settings_of):
    """(keys) -> RunKeys of two batches a step."""
    own = {"gradient_accumulation_steps": 2, "weights": "bf16", "precision": "bf16"}
    return lambda **keys: RunKeys.of(Config("SASRec", config_dict={**settings_of("SASRec"), **own, **keys}))


def write_scales(engines, out):
    found = {name: scales_of(settings) for name, settings in engines.items()}
    assert {kept["scale"].shape for _, kept in found.values()} == {torch.Size([])}
    assert {kept["scale"].dtype for _, kept in found.values()} == {torch.float32}
    out.write_text(json.dumps({name: [*used, kept["scale"].item()] for name, (used, kept) in found.items()}))


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_scalars_are_stepped_as_in_torch(settings, tmp_path):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}))
    zero = {str(stage): settings(strategy="deepspeed", stage=stage) for stage in (1, 2)}
    zero["3"] = settings(strategy="deepspeed", deepspeed_config=str(file))
    zero["offload"] = settings(strategy="deepspeed", offload=True)
    zero["0"] = settings(strategy="deepspeed", stage=0, weights="fp32")
    engines = {"single": settings(), **zero}
    launch_well(write_scales, engines, tmp_path / "out.json", world_size=1)
    found = json.loads((tmp_path / "out.json").read_text())
    expected = found["single"]
    assert max(expected) == pytest.approx(2.7) and expected.count(max(expected)) > 5 and expected[-1] < 2.66
    for name in zero:
        assert found[name] == pytest.approx(expected, abs=1e-6), name


def test_a_scalar_in_two_places_stays_one(settings):
    model = Scaled()
    model.other = nn.Module()
    model.other.scale = model.scale
    model.fixed = nn.Parameter(torch.tensor(3.0), requires_grad=False)
    weight = model.scale
    wrapped = WithScalars(LossOf(model, torch.device("cpu"), None))
    assert [vector is weight for vector in wrapped.vectors] == [True] and weight.shape == (1,)
    assert {name for name, _ in model.named_parameters()} == {"inner.weight", "inner.bias"}
    assert model.state_dict()["scale"].shape == () and model.state_dict()["fixed"].item() == 3.0
    wrapped(rows_of(0)).backward()
    assert model.other.scale is model.scale and model.scale.requires_grad
    assert weight.grad.tolist() == [-1.0]
    wrapped.settle()
    assert model.other.scale is model.scale is wrapped.exact[0] and not model.scale.requires_grad
    model.load_state_dict({**model.state_dict(), "scale": torch.tensor(1.5), "other.scale": torch.tensor(1.5)})
    assert wrapped.exact[0].item() == 1.5
