"""The official code's loss and gradients under every engine, in two processes of half a batch each."""

import gc
import json

import pytest
import torch
from engine_steps import ENGINES
from launched import launch_well
from reference_numbers import negatives_near

from recbole_hllm import processes
from recbole_hllm.data.batches import _shared

LOSS, NORMS = 1e-5, 2e-5  # absolute, and relative: gradients of two halves are rounded apart
WITHOUT_GRADIENT = "self.key.bias"  # of BERT's attention: rounding alone


def batch_of(pipeline, result):
    """Loss of a batch and norms of its gradients."""
    weights, sharded = pipeline.official_names(), pipeline.config["strategy"] == "deepspeed"
    here, engine = processes.current(), pipeline.trainer.engine
    pipeline.model.train()
    with negatives_near(result.get("loss")):
        own = engine.loss(_shared(pipeline.batch_of(result), here.rank, here.world_size))
    engine.backward(own)
    gradients = {name: _whole_gradient(weight, sharded) for name, weight in weights.items()}
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items() if gradient is not None}
    return [engine.means(own, {})[0].item(), norms]


def _whole_gradient(weight, sharded):
    if not sharded:
        return weight.grad
    from deepspeed.utils import safe_get_full_grad

    return safe_get_full_grad(weight)


def write_batches(pipelines, result, out):
    """The same under each engine, by the first of the processes."""
    gc.freeze()
    here = processes.begin(torch.device("cpu"))
    found = {name: batch_of(pipeline, result) for name, pipeline in pipelines.items()}
    if here.is_first:
        out.write_text(json.dumps(found))
    processes.end()


@pytest.fixture(scope="module")
def computed(pipeline_of, kind, tmp_path_factory):
    """What the official code has of the first batch, and what each engine makes of it, in one launch."""
    folder = tmp_path_factory.mktemp(kind)
    pipelines = {name: pipeline_of(kind, folder, **keys) for name, keys in ENGINES.items()}
    result = {"batch": 0, **pipelines["ddp"].given("batch_results.json", "batches", 0)}
    launch_well(write_batches, pipelines, result, folder / "out.json")
    return result, json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("engine", ENGINES)
def test_loss_and_gradients(computed, engine):
    result, (loss, norms) = computed[0], computed[1][engine]
    assert loss == pytest.approx(result["loss"], abs=LOSS)
    expected = {name: norm for name, norm in result["grad_norms"].items() if not name.endswith(WITHOUT_GRADIENT)}
    assert {name: norms[name] for name in expected} == pytest.approx(expected, rel=NORMS, abs=1e-9)
