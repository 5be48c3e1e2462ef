"""run() and load_run(): what a run returns, where it writes and what it leaves, and that it is evaluated again."""

import json
import logging
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from recbole_hllm import Config, load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs import run as experiment
from recbole_hllm.runs.folder import add_evaluation
from recbole_hllm.runs.run import evaluate_run
from recbole_hllm.storage.files import read_json
from recbole_hllm.training.trainer import Trainer

SIX = ["Pop", "SASRec", "GRU4Rec", "BERT4Rec", "FDSA", "SASRecF"]
MODELS = [*SIX, "BPR", "HLLM"]
FILES = {"best", "config.yaml", "costs.json", "last", "metrics.json", "previous", "protocol.json",
         "ranks-test.npz", "ranks-valid.npz", "run.log", "segments.json", "tensorboard", "curve.json",
         "versions.json", "trained_on.json"}  # fmt: skip


@pytest.fixture(scope="module")
def finished(settings_of, tmp_path_factory):
    """model name -> (result, the Trainer that made it) of one run each."""
    trainers, runs = [], {}

    class Remembered(Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            trainers.append(self)

    def of(name):
        if name not in runs:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(experiment, "Trainer", Remembered)
                folder = tmp_path_factory.mktemp("finished") / name
                runs[name] = run(name, config_dict=settings_of(name), run_dir=folder), trainers[-1]
        return runs[name]

    return of


def content(folder):
    """Every file below a folder with its bytes; the log apart, which may grow."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name != "run.log"
    }


def scores_of(model, loader):
    """(rows, items) scores of all rows; of each row's own item for a model that scores no catalogue."""
    model.eval()
    with torch.no_grad():
        try:
            return torch.cat([model.full_sort_predict(rows).view(len(rows), -1) for rows, *_ in loader])
        except NotImplementedError:
            return torch.cat([model.predict(rows) for rows, *_ in loader])


# ---- what comes back, and what stays ----


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_scores_are_equal(finished, name):
    result, trainer = finished(name)
    loaded = load_run(result["run_dir"])
    assert not loaded.model.training
    ours, theirs = scores_of(loaded.model, loaded.test_data), scores_of(trainer.model, loaded.test_data)
    assert torch.equal(ours, theirs) and ours.std() > 0
    again = evaluate_run(result["run_dir"])
    assert again["test_result"] == result["test_result"]
    assert again["valid_result"] == result["best_valid_result"]


@pytest.mark.parametrize("name", MODELS)
def test_the_config_of_a_run_is_read_back_as_it_was(finished, settings_of, name):
    original, loaded = Config(name, config_dict=settings_of(name)), load_run(finished(name)[0]["run_dir"]).config
    assert loaded.settings == original.settings
    for key, value in original.final_config_dict.items():
        assert loaded[key] == value, key


@pytest.mark.parametrize("name", ["Pop", "SASRec", "HLLM"])
def test_result_and_files(finished, name):
    result, trainer = finished(name)
    assert list(result) == [
        "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result", "run_dir",
    ]  # fmt: skip
    names = {f"{metric}@{k}" for metric in ("recall", "mrr", "ndcg") for k in (1, 3, 10)}
    assert set(result["test_result"]) == set(result["best_valid_result"]) == names
    assert result["best_valid_score"] == result["best_valid_result"]["mrr@10"] and result["valid_score_bigger"]
    folder = Path(result["run_dir"])
    there = {path.name for path in folder.iterdir()}
    expected = FILES - {"previous"} if name == "Pop" else FILES  # it has one checkpoint
    assert {name for name in there if not name.startswith("evaluation-")} == expected  # other tests evaluate it
    metrics = read_json(folder / "metrics.json")
    saved = {key: value for key, value in result.items() if key != "run_dir"}
    assert metrics == {"model": name, "dataset": "toy", **saved}
    costs = read_json(folder / "costs.json")
    parameters = sum(p.numel() for p in trainer.model.parameters())
    trained, needed = (0, trainer.model.item_cnt.numel()) if name == "Pop" else (parameters, parameters)
    assert (costs["parameters_total"], costs["parameters_trained"]) == (needed, trained)
    assert costs["epochs"] == (1 if name == "Pop" else 2)
    assert (costs["steps"] == 0) == (name == "Pop")
    reasons = {"Pop": "counted once", "SASRec": "limit of 2 epochs", "HLLM": "end of the schedule (2 epochs)"}
    assert costs["stop_reason"] == reasons[name]
    protocol = read_json(folder / "protocol.json")
    assert protocol["history_length"] == protocol["history_length_test"] == 5
    assert 100e6 < costs["peak_memory_bytes"] < 64e9
    for part in ("best", "last"):
        assert read_json(folder / part / "state.json")["model"] == name


@pytest.mark.parametrize("name", MODELS)
def test_nothing_in_a_run_folder_is_a_pickle(finished, name):
    folder = Path(finished(name)[0]["run_dir"])
    for path, data in content(folder).items():
        kind = path.rsplit(".", 1)[-1]
        if kind == "npz":
            assert np.load(folder / path, allow_pickle=False)["rank"].dtype == np.int64
        elif kind == "safetensors":
            json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        elif "tfevents" not in path:
            assert kind in ("json", "yaml") and yaml.safe_load(data.decode())


@pytest.mark.parametrize("name", ["Pop", "SASRec", "HLLM"])
def test_metrics_follow_from_the_kept_ranks(finished, name):
    result, _ = finished(name)
    for phase, metrics in (("valid", result["best_valid_result"]), ("test", result["test_result"])):
        with np.load(Path(result["run_dir"]) / f"ranks-{phase}.npz") as arrays:
            users, ranks = arrays["user"], arrays["rank"]
            assert len(set(users.tolist())) == len(users) == len(arrays["target"]) == 14
        for k in (1, 3, 10):
            hit = ranks <= k
            assert metrics[f"recall@{k}"] == round(np.mean(hit), 10)
            assert metrics[f"mrr@{k}"] == round(np.mean(np.where(hit, 1 / ranks, 0)), 10)
            assert metrics[f"ndcg@{k}"] == round(np.mean(np.where(hit, 1 / np.log2(ranks + 1), 0)), 10)


# ---- where a run writes ----


def test_only_runs_appears_in_the_working_folder(settings_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {run("Pop", config_dict=settings_of("Pop"))["run_dir"] for _ in range(2)}
    assert len(folders) == 2  # within a second
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert {path.parent.as_posix() for path in map(Path, folders)} == {"runs/toy"}


def test_nothing_appears_there_with_a_folder_of_its_own(settings_of, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run("SASRec", config_dict=settings_of("SASRec"), run_dir=tmp_path / "a" / "b c" / "run")
    assert list(Path.cwd().iterdir()) == []
    assert {path.name for path in (tmp_path / "a" / "b c" / "run").iterdir()} == FILES


@pytest.mark.parametrize("there", ["config.yaml", "metrics.json", "best"])
def test_a_folder_that_holds_a_run_is_not_touched(settings_of, tmp_path, there):
    (tmp_path / there).mkdir() if there == "best" else (tmp_path / there).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(ConfigError, match=f"already holds a run \\({there}\\)"):
        run("Pop", config_dict=settings_of("Pop"), run_dir=tmp_path)
    assert content(tmp_path) == before and len(list(tmp_path.iterdir())) == 1


def test_another_model_or_data_set_does_not_go_on(finished, settings_of):
    folder = finished("SASRec")[0]["run_dir"]
    before = content(folder)
    with pytest.raises(ConfigError, match="is a run of SASRec on toy, not of GRU4Rec on toy"):
        run("GRU4Rec", config_dict={**settings_of("GRU4Rec"), "resume": True}, run_dir=folder)
    with pytest.raises(ConfigError, match="not of SASRec on other"):
        run("SASRec", "other", config_dict={"resume": True}, run_dir=folder)
    with pytest.raises(ConfigError, match="resume: name the folder"):
        run("SASRec", config_dict={**settings_of("SASRec"), "resume": True})
    assert content(folder) == before


def test_other_files_of_the_user_stay(settings_of, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run("Pop", config_dict=settings_of("Pop"), run_dir=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_or_written_is_named(settings_of, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/self")):
        with pytest.raises(ConfigError, match="run_dir: cannot (make|write)"):
            run("Pop", config_dict=settings_of("Pop"), run_dir=folder)


def test_values_of_a_notebook_are_kept(settings_of, toy, tmp_path):
    values = {
        "learning_rate": np.float64(0.005), "seed": np.int64(3), "data_path": Path(toy), "topk": (1, 10),
        "cache_dir": tmp_path / "cache",
    }  # fmt: skip
    result = run("SASRec", config_dict={**settings_of("SASRec"), **values}, run_dir=tmp_path / "run")
    config = load_run(result["run_dir"]).config
    assert (config["learning_rate"], config["seed"], config["topk"]) == (0.005, 3, [1, 10])
    assert config["cache_dir"] == str(tmp_path / "cache")


# ---- around a run ----


def test_neither_arguments_nor_logging_nor_warnings_are_touched(settings_of, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kernel.py", "-f", "kernel.json", "--model=Nobody", "--epochs=99", "words"])
    root = logging.getLogger()
    before = root.level, list(root.handlers), list(warnings.filters), logging.root.manager.disable
    names = ("transformers", "recbole", "torch", "matplotlib")
    levels = [logging.getLogger(name).level for name in names]
    run("HLLM", config_dict=settings_of("HLLM"), run_dir=tmp_path / "a")
    assert read_json(tmp_path / "a" / "costs.json")["epochs"] == 2
    assert before == (root.level, list(root.handlers), list(warnings.filters), logging.root.manager.disable)
    assert levels == [logging.getLogger(name).level for name in names]


def test_a_run_in_a_thread_gives_the_same(finished, settings_of, tmp_path):
    results = []

    def work():
        results.append(run("SASRec", config_dict=settings_of("SASRec"), run_dir=tmp_path / "run"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results[0]["test_result"] == finished("SASRec")[0]["test_result"]


def test_the_log_tells_of_an_error(settings_of, tmp_path):
    settings = {**settings_of("SASRec"), "eval_args": {"mode": "uni500"}}
    with pytest.raises(ValueError, match="uni500|500 sampled"):
        run("SASRec", config_dict=settings, run_dir=tmp_path / "run")
    assert "500" in (tmp_path / "run" / "run.log").read_text()


# ---- evaluation again ----


def test_keys_for_recboles_pickles_are_said_to_have_no_effect(settings_of, tmp_path):
    keys = settings_of("Pop") | {"checkpoint_dir": str(tmp_path / "mine"), "save_dataset": True}
    run("Pop", "toy", config_dict=keys, run_dir=tmp_path / "run")
    log = (tmp_path / "run" / "run.log").read_text()
    assert "checkpoint_dir, save_dataset without effect: everything of a run is in its folder" in log
    assert "save_dataloaders" not in log and not (tmp_path / "mine").exists()


def test_evaluation_with_other_keys_changes_nothing(finished, settings_of, tmp_path):
    folder = tmp_path / "run"
    result = run("SASRec", config_dict=settings_of("SASRec"), run_dir=folder)
    before = content(folder)
    first = evaluate_run(folder, {"topk": [2, 12], "metrics": ["Hit"], "valid_metric": "Hit@2"})
    assert set(first["test_result"]) == {"hit@2", "hit@12"} and first["test_result"]["hit@12"] == 1.0
    second = run(config_dict={"evaluate_only": True, "mask_history": True}, run_dir=folder)
    assert second["test_result"]["recall@10"] >= result["test_result"]["recall@10"]
    third = run(run_dir=folder, arguments={"evaluate_only": "True", "eval_args": "{'mode': 'uni3'}"})
    assert third["test_result"]["recall@10"] == 1.0  # four candidates
    after = content(folder)
    files = [f"evaluation-{number}.json" for number in (1, 2, 3)]
    assert after.keys() - before.keys() == set(files)
    assert {name: after[name] for name in before} == before
    assert json.loads(after[files[1]])["changed"] == {"mask_history": True}
    assert json.loads(after[files[2]])["test_result"] == third["test_result"]


@pytest.mark.parametrize("places", [2, 4, 7])
def test_no_metric_has_digits_behind_its_decimal_places(settings_of, tmp_path, places):
    """RecBole's GAUC is in single precision: 0.617 would be 0.6169999837875366."""
    metrics = ["GAUC", "Recall", "MRR", "AveragePopularity", "ShannonEntropy", "GiniIndex", "Gini", "Entropy"]
    keys = settings_of("SASRec") | {"metrics": metrics, "metric_decimal_place": places, "valid_metric": "GAUC"}
    result = run("SASRec", config_dict=keys, run_dir=tmp_path / "run")
    kept = read_json(tmp_path / "run" / "metrics.json")
    for values in (result["test_result"], result["best_valid_result"], kept["test_result"], kept["best_valid_result"]):
        assert values == {name: round(value, places) for name, value in values.items()} and "gauc" in values
        assert all(len(str(value).partition(".")[2]) <= places for value in values.values())
    assert result["best_valid_score"] == result["best_valid_result"]["gauc"]


def test_evaluation_needs_a_run(tmp_path, finished):
    with pytest.raises(ConfigError, match="run_dir: name the folder"):
        run(config_dict={"evaluate_only": True})
    with pytest.raises(ConfigError, match="no run in .*: no config.yaml"):
        load_run(tmp_path)
    with pytest.raises(ConfigError, match="is a run of SASRec on toy, not of GRU4Rec on toy"):
        run("GRU4Rec", config_dict={"evaluate_only": True}, run_dir=finished("SASRec")[0]["run_dir"])


def test_evaluation_with_a_topk_that_lacks_the_valid_metric(finished):
    result = finished("SASRec")[0]
    again = run(run_dir=result["run_dir"], config_dict={"evaluate_only": True, "topk": [3]})
    assert set(again["test_result"]) == {"recall@3", "mrr@3", "ndcg@3"}
    assert again["test_result"]["mrr@3"] == result["test_result"]["mrr@3"]
    with pytest.raises(ConfigError, match="valid_metric: 'MRR@10' is not computed"):
        load_run(result["run_dir"], {"topk": [3]})
    assert load_run(result["run_dir"], {"topk": [3], "evaluate_only": True}).config["topk"] == [3]


def test_no_evaluation_is_overwritten(tmp_path):
    names = ["evaluation-2.json", "evaluation-10.json", "evaluation-99.json.bak", "evaluation-x.json"]
    for name in names:
        (tmp_path / name).write_text("mine")
    add_evaluation(tmp_path, {"a": 1})
    add_evaluation(tmp_path, {"a": 2})
    assert [read_json(tmp_path / f"evaluation-{number}.json")["a"] for number in (11, 12)] == [1, 2]
    assert all((tmp_path / name).read_text() == "mine" for name in names)
    with pytest.raises(ConfigError, match="cannot write .*gone"):
        add_evaluation(tmp_path / "gone", {})


@pytest.mark.parametrize("length, used", [(None, 5), (9, 9)])
def test_the_history_length_of_the_evaluation_is_kept(settings_of, tmp_path, length, used):
    keys = {**settings_of("HLLM"), "epochs": 0, "MAX_ITEM_LIST_LENGTH_TEST": length}
    run("HLLM", config_dict=keys, run_dir=tmp_path / "run")
    protocol = read_json(tmp_path / "run" / "protocol.json")
    assert (protocol["history_length"], protocol["history_length_test"]) == (5, used)


@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_damaged_weights_name_their_file(settings_of, finished, tmp_path, damage):
    folder = tmp_path / "run"
    run("Pop", config_dict=settings_of("Pop"), run_dir=folder)
    weights = folder / "best" / "weights.safetensors"
    data = {"cut": weights.read_bytes()[:50], "gone": b""}.get(damage)
    if damage == "foreign":
        data = (Path(finished("SASRec")[0]["run_dir"]) / "best" / weights.name).read_bytes()
    weights.unlink() if damage == "gone" else weights.write_bytes(data)
    with pytest.raises(ModelError, match="best"):
        load_run(folder)


# ---- masking, candidates, splits ----


def evaluated(loaded):
    """Batches as the Trainer ranks them: index of the rows, scores, targets."""
    trainer, start = Trainer(loaded.config, loaded.model, loaded.run_dir), 0
    trainer.tot_item_num = loaded.dataset.item_num
    for batch in loaded.test_data:
        with torch.no_grad():
            _, scores, _, targets = trainer._full_sort_batch_eval(batch)
        yield np.arange(start, start + len(scores)), scores, targets
        start += len(scores)


@pytest.mark.parametrize("name", ["Pop", "SASRec", "BPR", "HLLM"])
def test_the_whole_history_is_masked_for_every_model(finished, name):
    loaded = load_run(finished(name)[0]["run_dir"], {"mask_history": True, "eval_batch_size": 5})
    sequences, part = loaded.dataset.sequences, loaded.test_data._dataset
    longest = 0
    for rows, scores, targets in evaluated(loaded):
        for row, row_scores, target in zip(rows, scores, targets, strict=True):
            position = part.targets[row]
            begin = sequences.offsets[sequences.of(position)]
            history = sequences.items[begin:position]
            expected = torch.zeros(len(row_scores), dtype=torch.bool)
            expected[torch.from_numpy(history)], expected[0] = True, True
            assert torch.equal(torch.isneginf(row_scores), expected) and not expected[target]
            longest = max(longest, len(history))
    assert longest > loaded.config["MAX_ITEM_LIST_LENGTH"]


@pytest.mark.parametrize("mode", ["uni3", "pop3"])
def test_candidates_are_the_same_for_every_model(finished, mode):
    seen = []
    for name in ("Pop", "SASRec", "HLLM"):
        loaded = load_run(finished(name)[0]["run_dir"], {"eval_args": {"mode": mode}})
        seen.append(loaded.test_data.candidates)
        for rows, scores, targets in evaluated(loaded):
            candidates = [{*map(int, torch.nonzero(~torch.isneginf(row))[:, 0])} for row in scores]
            wanted = [{*map(int, seen[0][row]), int(target)} for row, target in zip(rows, targets, strict=True)]
            assert candidates == wanted and all(len(items) == 4 for items in candidates)
    assert all(np.array_equal(seen[0], other) for other in seen)


@pytest.mark.parametrize("name", ["Pop", "SASRec", "HLLM"])
@pytest.mark.parametrize("split", ["valid_only", "test_only"])
def test_splits_without_validation_or_test(settings_of, tmp_path, name, split):
    settings = {**settings_of(name), "eval_args": {"split": {"LS": split}}}
    result = run(name, config_dict=settings, run_dir=tmp_path / "run")
    gone, kept = ("test", "valid") if split == "valid_only" else ("valid", "test")
    assert (result["best_valid_result"] is None) == (result["best_valid_score"] is None) == (kept == "test")
    assert (result["test_result"] is None) == (kept == "valid")
    assert (tmp_path / "run" / f"ranks-{kept}.npz").exists() and not (tmp_path / "run" / f"ranks-{gone}.npz").exists()
    assert evaluate_run(tmp_path / "run")["test_result"] == result["test_result"]


@pytest.mark.parametrize("fast, precision, told", [("fp32", "bf16", 1), ("bf16", "bf16", 0), ("fp32", "fp32", 0)])
def test_bf16_without_instructions_for_it_is_said_to_be_slow(settings_of, tmp_path, monkeypatch, fast, precision, told):
    monkeypatch.setattr("recbole_hllm.runs.run.fast_precision", lambda device: fast)
    keys = settings_of("Pop") | {"precision": precision, "state": "info"}
    run("Pop", "toy", config_dict=keys, run_dir=tmp_path / "run")
    log = (tmp_path / "run" / "run.log").read_text()
    assert f"history mask off; {precision}; seed" in log
    assert ("precision: bf16 on a cpu without instructions for it is slower than fp32" in log) == told
