"""Negatives and losses that look at the whole batch are those of one process in three."""

import json

import engine_steps
import pytest
from launched import launch

from recbole_hllm.processes import end

FULL = {"item_llm_tuning": "full"}
IN_BATCH = {"in_batch_negatives": True, "num_negatives": 2}
MEMORY = {"cross_batch_negatives": 30, "cross_batch_correction": True}
CACHED = {"negatives": "cached", "num_negatives": 3}
SYSTEMS = {
    "ids, all": ("SASRecNCE", {**IN_BATCH, **MEMORY, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}),
    "texts, targets alone": ("HLLM", {"in_batch_negatives": True, "num_negatives": 0}),
    "texts, memory": ("HLLM", {"num_negatives": 4, **MEMORY}),
    "cache": ("HLLM", {**CACHED, "live_items": 7, "cache_refresh_steps": 3, "cache_refresh_items": 4}),
    "cache, all live": ("HLLM", CACHED),
    "late ranker": ("HLLMRanker", {"loss_lambda": 0.5, **FULL, **IN_BATCH}),
    "all actions": ("LEARN", {"dropout": 0.0, "sampling": "last"}),
    "early ranker": ("HLLMRanker", {"loss_lambda": 0.5, **FULL, "fusion": "early"}),
}
STEPS = 5


@pytest.fixture(scope="module")
def runs(settings_of):
    """Name -> keys, with batches of which an epoch's last has one row or two: fewer than processes."""

    def keys(model, own):
        size = {"HLLMRanker": 41, "LEARN": 16}.get(model, 8)  # of 83, 34 and 17 rows
        return {**settings_of(model), "train_batch_size": size, "epochs": 50, **own}

    return {name: {**keys(model, own), "model": model} for name, (model, own) in SYSTEMS.items()}


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory):
    """What one process computes."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: engine_steps.losses_of(keys, STEPS, folder / name) for name, keys in runs.items()}


def steps(runs, folder):
    """What each of several processes prints: what it has found of every run."""
    found = {name: engine_steps.losses_of(keys, STEPS, folder / name, resumed=3) for name, keys in runs.items()}
    end()
    print(json.dumps(found))


def test_several_processes_have_the_losses_of_one(runs, alone, tmp_path):
    ended = launch(steps, runs, tmp_path / "run", world_size=3)
    assert [process.code for process in ended] == [0] * 3, ended[0].err + ended[-1].err
    for process in ended:
        found = json.loads(process.out.splitlines()[-1])
        for name, one in alone.items():
            for step, expected in zip(found[name]["terms"], one["terms"], strict=True):
                known = {term: value for term, value in expected.items() if not term.endswith("/s")}
                assert {term: step[term] for term in known} == pytest.approx(known, rel=1e-3, abs=1e-5), name
                assert step["loss"] == pytest.approx(expected["loss"], rel=1e-5), name
            assert found[name]["norms"] == pytest.approx(one["norms"], rel=1e-4, abs=1e-5), name
            assert found[name]["scores"] == pytest.approx(one["scores"], rel=1e-3, abs=1e-4), name
