"""Whole runs of models that score labelled interactions."""

import json

import numpy as np
import pytest
import torch

from recbole_hllm import load_run, run
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.places import properties_folder
from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation.value_metrics import grouped_auc
from recbole_hllm.registry import get_spec, model_names
from recbole_hllm.tables.side_by_side import _check

OURS = ("HLLMRanker", "LEARNRanker", "LEARNScorer")
CONTEXT = ("AFM", "AutoInt", "DCN", "DCNV2", "DSSM", "DeepFM", "EulerNet", "FFM", "FM", "FNN", "FiGNN", "FwFM", "LR",
           "NFM", "PNN", "WideDeep", "xDeepFM")  # fmt: skip


@pytest.fixture
def settings(settings_of, tmp_path):
    def make(model):
        # Every run must have both labels in each part.
        args = {"split": {"RS": [0.6, 0.2, 0.2]}}
        own = settings_of(model if model in OURS else "DIN")
        return {**own, "eval_args": args, "cache_dir": str(tmp_path / "cache"),
                "dataset": "labelled", "metrics": ["AUC", "LogLoss", "GAUC"], "valid_metric": "AUC"}  # fmt: skip

    return make


def labelled_models():
    for name in model_names():
        try:
            if get_spec(name).rows.labelled:
                yield name
        except ConfigError:
            continue


def test_all_of_them_are_here():
    assert set(labelled_models()) == {*CONTEXT, "DIN", "DIEN", *OURS}


@pytest.mark.parametrize("model", [*CONTEXT, "DIN", "DIEN", *OURS])
def test_a_run_leaves_the_scores_of_every_row(settings, tmp_path, model):
    result = run(model, config_dict=settings(model), run_dir=tmp_path / "run")
    with np.load(tmp_path / "run" / "scores-test.npz") as file:
        kept = {name: file[name] for name in file.files}
    loaded = load_run(tmp_path / "run")
    rows = loaded.test_data._dataset[:]
    for name, field in (("user", "user_id"), ("item", "item_id"), ("label", "label")):
        np.testing.assert_array_equal(kept[name], rows[field].numpy())
    assert (kept["score"] >= 0).all() and (kept["score"] <= 1).all()
    with torch.no_grad():
        scores = torch.cat([loaded.model.predict(batch[0]) for batch in loaded.test_data])
    np.testing.assert_allclose(scores.numpy(), kept["score"], atol=1e-6)
    assert list(result["test_result"]) == ["auc", "logloss", "gauc"]
    gauc = grouped_auc(kept["user"], kept["label"], kept["score"])
    assert result["test_result"]["gauc"] == pytest.approx(gauc, abs=1e-9)
    assert not (tmp_path / "run" / "ranks-test.npz").exists()


@pytest.mark.parametrize("model", ["DCN", "DCNV2", "DIEN", "DIN", "DSSM", "NFM", "FM"])
def test_batches_of_all_rows_but_one(settings, tmp_path, model):
    """Models that normalise over the rows of a batch have no use for one row, which another model trains on alone."""
    rows = len(load_run(run("FM", config_dict=settings("FM"), run_dir=tmp_path / "a")["run_dir"]).train_data._dataset)
    keys = {**settings(model), "train_batch_size": rows - 1, "epochs": 1}
    run(model, config_dict=keys, run_dir=tmp_path / "b")
    whole = run(model, config_dict={**keys, "train_batch_size": rows}, run_dir=tmp_path / "c")
    joined = run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "b")
    assert (joined["test_result"] == whole["test_result"]) == (model != "FM")


def test_a_finished_run_is_evaluated_again(settings, tmp_path):
    first = run("DIN", config_dict=settings("DIN"), run_dir=tmp_path / "run")
    again = run(config_dict={"evaluate_only": True, "metrics": ["GAUC", "RMSE"]}, run_dir=tmp_path / "run")
    assert again["test_result"]["gauc"] == first["test_result"]["gauc"] and again["test_result"]["rmse"] > 0


def test_a_metric_without_a_value_is_null_in_every_file(settings, write_dataset, tmp_path):
    """Nobody has rows of both labels, so no user has an AUC."""
    events = [(f"u{user}", f"i{item}", user % 2, 20 * item + user) for item in range(12) for user in range(10)]
    header = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    write_dataset(tmp_path, "onesided", events, header=header)
    own = {"data_path": str(tmp_path), "dataset": "onesided", "metrics": ["AUC", "UAUC", "GAUC"], "load_col": None}
    run("DIN", config_dict={**settings("DIN"), **own}, run_dir=tmp_path / "run")
    run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "run")
    files = sorted((tmp_path / "run").rglob("*.json"))
    assert {"metrics.json", "evaluation-1.json", "state.json", "training.json"} <= {file.name for file in files}
    for file in files:
        json.loads(file.read_text(), parse_constant=pytest.fail)
    result = json.loads((tmp_path / "run" / "metrics.json").read_text())["test_result"]
    assert result["uauc"] is None and result["gauc"] is None and 0 <= result["auc"] <= 1


def test_a_run_goes_on_where_it_stopped(settings, tmp_path):
    keys = {**settings("DIN"), "stopping_step": 9}
    whole = run("DIN", config_dict={**keys, "epochs": 3}, run_dir=tmp_path / "whole")
    run("DIN", config_dict={**keys, "epochs": 1}, run_dir=tmp_path / "parts")
    resumed = run(config_dict={"resume": True, "epochs": 3}, run_dir=tmp_path / "parts")
    assert resumed["test_result"] == whole["test_result"]


def test_rankers_and_recommenders_have_no_table_together(settings):
    keys = {key: value for key, value in settings("DIN").items() if key not in ("metrics", "valid_metric", "eval_args")}
    with pytest.raises(ConfigError, match="model: DIN score labelled rows and Pop rank items"):
        _check(["DIN", "Pop"], keys, {}, None)


def test_a_ranker_on_stored_item_vectors_is_read_back(settings, tmp_path):
    keys = {**settings("HLLMRanker"), "item_llm_tuning": "frozen", "cache_dir": str(tmp_path / "cache")}
    result = run("HLLMRanker", config_dict=keys, run_dir=tmp_path / "run")
    assert list((tmp_path / "cache").glob("vectors-*"))
    again = run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "run")
    assert again["test_result"] == result["test_result"]


def test_the_ranking_benchmark_fits_its_models(toy):
    """Keys that a row does not know, or that its rows may not have for themselves, would be refused."""
    keys = read_yaml(properties_folder() / "benchmark" / "hllm_ranker.yaml")
    models = keys.pop("model")
    configs = _check(models, {**keys, "data_path": toy, "dataset": "labelled"}, {}, None)
    assert {"HLLMRanker", "DIN"} <= configs.keys()
    assert len({config[key] for config in configs.values() for key in ("MAX_ITEM_LIST_LENGTH", "valid_metric")}) == 2
