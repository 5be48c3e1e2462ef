"""Models of every kind train under every engine, in two processes, as in one."""

import json
from itertools import product

import engine_steps
import pytest
from engine_steps import ENGINES
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
    "HLLMRanker": {"loss_lambda": 0.0},
    "PromptLLMTuned": {},
    "Pop": {},  # counts
}
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


@pytest.fixture(scope="module")
def together(runs, tmp_path_factory):
    """(engine, model) -> what each of two processes computes, in one launch."""
    folder = tmp_path_factory.mktemp("together")
    pairs = list(product(ENGINES, SAMPLE))
    keys = {(engine, name): {**runs[name]["keys"], **ENGINES[engine]} for engine, name in pairs}
    own = {f"{engine}-{name}": {**runs[name], "keys": keys[engine, name]} for engine, name in pairs}
    ended = launch(engine_steps.write_all, folder / "out", own)
    assert [process.code for process in ended] == [0, 0], [process.err[-4000:] for process in ended]
    written = [json.loads((folder / f"out.{rank}").read_text(encoding="utf-8")) for rank in range(2)]
    return {(engine, name): [process[f"{engine}-{name}"] for process in written] for engine, name in pairs}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SAMPLE)
def test_losses_and_scores(alone, together, engine, name):
    losses, scores = [step["loss"] for step in alone[name]["terms"]], alone[name]["scores"]
    assert len(losses) == 2
    for process in together[engine, name]:
        assert [step["loss"] for step in process["terms"]] == pytest.approx(losses, rel=1e-5)
        assert process["scores"] == pytest.approx(scores, rel=1e-3, abs=1e-4)
