"""The official code's loss and gradients under every engine, in two processes of half a batch each."""

import json
from importlib.util import find_spec

import pytest
import torch
from launched import launch
from reference_numbers import negatives_near

from recbole_hllm import processes
from recbole_hllm.data.batches import _shared

LOSS, NORMS = 1e-5, 2e-5  # absolute, and relative: gradients of two halves are rounded apart
ENGINES = {
    "ddp": {"strategy": "ddp"},
    **{f"zero{stage}": {"strategy": "deepspeed", "stage": stage} for stage in range(4)},
}
WITHOUT_GRADIENT = "self.key.bias"  # of BERT's attention: rounding alone
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


def write_batch(pipeline, result, out):
    """Loss of a batch and norms of its gradients, by the first of the processes."""
    weights, sharded = pipeline.official_names(), pipeline.config["strategy"] == "deepspeed"
    here = processes.begin(torch.device("cpu"))
    engine = pipeline.trainer.engine
    pipeline.model.train()
    with negatives_near(result.get("loss")):
        own = engine.loss(_shared(pipeline.batch_of(result), here.rank, here.world_size))
    engine.backward(own)
    gradients = {name: _whole_gradient(weight, sharded) for name, weight in weights.items()}
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items() if gradient is not None}
    loss = engine.means(own, {})[0].item()
    if here.is_first:
        out.write_text(json.dumps([loss, norms]))
    processes.end()


def _whole_gradient(weight, sharded):
    if not sharded:
        return weight.grad
    from deepspeed.utils import safe_get_full_grad

    return safe_get_full_grad(weight)


@pytest.mark.parametrize("engine", ["ddp", *(pytest.param(f"zero{n}", marks=needs_deepspeed) for n in range(4))])
def test_loss_and_gradients(new_pipeline, tmp_path, engine):
    pipeline = new_pipeline(**ENGINES[engine])
    result = {"batch": 0, **pipeline.given("batch_results.json", "batches", 0)}
    expected = pipeline.given("batch_results.json", "batches", 0, "grad_norms")
    ended = launch(write_batch, pipeline, result, tmp_path / "out.json")
    assert [process.code for process in ended] == [0, 0], [process.err[-4000:] for process in ended]
    loss, norms = json.loads((tmp_path / "out.json").read_text())
    assert loss == pytest.approx(result["loss"], abs=LOSS)
    compared = [name for name in expected if not name.endswith(WITHOUT_GRADIENT)]
    assert {name: norms[name] for name in compared} == pytest.approx(
        {name: expected[name] for name in compared}, rel=NORMS, abs=1e-9
    )
