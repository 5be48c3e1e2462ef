"""Models of every kind train under every engine, in two processes, as in one."""

import json
from importlib.util import find_spec

import engine_steps
import pytest
from engine_steps import ENGINES
from launched import launch_well

from recbole_hllm import Config, create_dataset, data_preparation, run
from recbole_hllm.errors import ConfigError
from recbole_hllm.runs.prerequisites import complete
from recbole_hllm.training.trainer import Trainer

LABELLED = {"dataset": "labelled", "metrics": ["AUC"], "valid_metric": "AUC"}
# model -> keys beside those of the toy settings; nothing is drawn by a process for its own rows
SAMPLE = {
    "BPR": {},  # pairs of a row's item and one that is drawn
    "FM": LABELLED,  # single items with labels
    "BERT4Rec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},  # masked items, as many as are drawn
    "GRU4Rec": {"dropout_prob": 0.0},  # histories
    "SASRecNCE": {"num_negatives": 8, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},  # windows
    "E4SRec": {"lora_dropout": 0.0},  # needs another run
    "LEARNScorer": {"dropout": 0.0, "sampling": "last"},
    "HLLMRanker": {"loss_lambda": 0.0},
    "PromptLLMTuned": {},  # a head that reads the table of words
    "Pop": {},  # counts
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
# More models of windows; make test-slow has them under engines other than ddp.
OF_WINDOWS = {
    "SASRecCE": NO_DROPOUT,
    "gSASRec": {"num_negatives": 8, **NO_DROPOUT},
    "eSASRec": {"num_negatives": 8, **NO_DROPOUT},
    "LRURec": {"hidden_dropout_prob": 0.0, "recurrent_dropout_prob": 0.0},
    "WhitenRec": NO_DROPOUT,
    "UniSRec": {"n_experts": 1, "adaptor_dropout_prob": 0.0, **NO_DROPOUT},  # the gates of several have noise
}
REFUSED = {("zero3", "PromptLLMTuned")}
# make test-slow has the others
ENGINES_HERE = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("zero0", "zero1")), id=name) for name in ENGINES
]


@pytest.fixture(scope="module")
def runs(settings_of, tmp_path_factory):
    """model -> its run of two steps, with what it needs."""
    cache = str(tmp_path_factory.mktemp("cache"))
    found = {}
    for name, own in {**SAMPLE, **OF_WINDOWS}.items():
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


@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_losses_and_scores(runs, alone, tmp_path, engine):
    check_losses_and_scores(runs, alone, tmp_path, engine, [name for name in SAMPLE if (engine, name) not in REFUSED])


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=[pytest.mark.slow] * (name != "ddp"), id=name) for name in ENGINES]
)
def test_losses_and_scores_of_further_models_of_windows(runs, alone, tmp_path, engine):
    check_losses_and_scores(runs, alone, tmp_path, engine, OF_WINDOWS)


def check_losses_and_scores(runs, alone, tmp_path, engine, names):
    own = {name: {**runs[name], "keys": {**runs[name]["keys"], **ENGINES[engine]}} for name in names}
    launch_well(engine_steps.write_all, tmp_path / "out", own)
    for rank in range(2):
        found = json.loads((tmp_path / f"out.{rank}").read_text(encoding="utf-8"))
        for name in names:
            losses, scores = [step["loss"] for step in alone[name]["terms"]], alone[name]["scores"]
            assert len(losses) == 2
            assert [step["loss"] for step in found[name]["terms"]] == pytest.approx(losses, rel=1e-5), name
            assert found[name]["scores"] == pytest.approx(scores, rel=1e-3, abs=1e-4), name


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_a_layer_that_reads_weights_of_another_is_refused_with_stage_3(runs, tmp_path):
    config = Config(config_dict={**runs["PromptLLMTuned"]["keys"], "strategy": "deepspeed", "stage": 3})
    model = config.spec.build(config, data_preparation(config, create_dataset(config))[0]._dataset)
    with pytest.raises(ConfigError, match="stage: 3 is not for PromptLLMTuned, whose .* take 2"):
        Trainer(config, model, tmp_path)
