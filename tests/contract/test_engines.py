"""Models of every kind train under every engine, in two processes, as in one."""

import json
from importlib.util import find_spec

import engine_steps
import pytest
from launched import launch

from recbole_hllm import Config, run
from recbole_hllm.runs.prerequisites import complete

LABELLED = {"dataset": "labelled", "metrics": ["AUC"], "valid_metric": "AUC"}
# model -> keys beside those of the toy settings; nothing is drawn by a process for its own rows
SAMPLE = {
    "BPR": {},  # pairs of a row's item and one that is drawn
    "FM": LABELLED,  # single items with labels
    "GRU4Rec": {"dropout_prob": 0.0},  # histories
    "SASRecNCE": {"num_negatives": 8, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},  # windows
    "E4SRec": {"lora_dropout": 0.0},  # needs another run
    "LEARNScorer": {"dropout": 0.0, "sampling": "last"},
    "HLLMRanker": {},
    "PromptLLMTuned": {},
    "Pop": {},  # counts
}
ENGINES = {
    "ddp": {"strategy": "ddp"},
    **{f"zero{stage}": {"strategy": "deepspeed", "stage": stage} for stage in range(4)},
}
# More stages: make test-slow.
PARAMETERS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("zero0", "zero1")), id=name) for name in ENGINES
]


@pytest.fixture(scope="module")
def runs(settings_of, tmp_path_factory):
    """model -> its run of two steps, with what it needs."""
    cache = str(tmp_path_factory.mktemp("cache"))
    found = {}
    for name, own in SAMPLE.items():
        keys = {**settings_of(name), "cache_dir": cache, "train_batch_size": 5, "epochs": 2, **own, "model": name}
        config = Config(config_dict=keys)
        complete(config, None, run)
        made = {key: config[key] for key in ("item_table",) if name == "E4SRec"}
        found[name] = {"keys": {**keys, **made}, "steps": 2}
    return found


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory):
    """What one process computes."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: engine_steps.losses_of(folder=folder / name, **run) for name, run in runs.items()}


@pytest.mark.parametrize("engine", PARAMETERS)
def test_losses_and_scores(runs, alone, tmp_path, engine):
    if engine != "ddp" and find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    own = {name: {**run, "keys": {**run["keys"], **ENGINES[engine]}} for name, run in runs.items()}
    ended = launch(engine_steps.write_all, tmp_path / "out", own)
    assert [process.code for process in ended] == [0, 0], [process.err[-4000:] for process in ended]
    for rank in range(2):
        found = json.loads((tmp_path / f"out.{rank}").read_text(encoding="utf-8"))
        for name, one in alone.items():
            losses = [step["loss"] for step in one["terms"]]
            assert len(losses) == 2 and [step["loss"] for step in found[name]["terms"]] == pytest.approx(
                losses, rel=1e-5
            ), name
            assert found[name]["scores"] == pytest.approx(one["scores"], rel=1e-3, abs=1e-4), name
