"""run() and load_run(): what a run returns, what it leaves, and that it can be taken up again."""

import json
import logging
import pickle
import shutil
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from recbole_hllm import Config, experiment, load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.experiment import evaluate_run
from recbole_hllm.run_folder import add_evaluation, read_settings
from recbole_hllm.training.checkpoint import read_tensors
from recbole_hllm.training.files import read_json
from recbole_hllm.training.trainer import Trainer

SIX = ["Pop", "SASRec", "GRU4Rec", "BERT4Rec", "FDSA", "SASRecF"]
MODELS = [*SIX, "BPR", "HLLM"]
FILES = {"best", "config.yaml", "costs.json", "last", "metrics.json", "protocol.json", "ranks-test.npz",
         "ranks-valid.npz", "run.log", "segments.json", "tensorboard"}  # fmt: skip


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
    assert {path.name for path in folder.iterdir()} - {"evaluation-1.json"} == FILES
    metrics = read_json(folder / "metrics.json")
    saved = {key: value for key, value in result.items() if key != "run_dir"}
    assert metrics == {"model": name, "dataset": "toy", **saved}
    costs = read_json(folder / "costs.json")
    parameters = sum(p.numel() for p in trainer.model.parameters())
    assert costs["parameters_total"] == costs["parameters_trained"] == parameters
    assert costs["epochs"] == (1 if name == "Pop" else 2)
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


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_that_recbole_would_open_stay_closed(settings_of, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    names = ["toy-SequentialDataset.pth", "toy-SequenceDataset.pth", "toy-Dataset.pth", "toy-for-SASRec-dataloader.pth"]
    for folder in (Path("saved"), Path("run"), Path("run/best"), Path("run/last"), Path(toy) / "toy"):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(trap)
    settings = settings_of("SASRec")
    with pytest.raises(ConfigError, match="already holds a run"):
        run("SASRec", config_dict=settings, run_dir="run")
    run("SASRec", config_dict={**settings, "save_dataset": False}, run_dir="other")
    for name in names:
        (tmp_path / "other" / "best" / name).write_bytes(trap)
        (Path(toy) / "toy" / name).unlink()
    load_run("other")
    run("SASRec", config_dict={**settings, "resume": True, "epochs": 3}, run_dir="other")
    assert not (tmp_path / "sprung").exists()


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
    assert "checkpoint_dir has no effect" in log and "save_dataset has no effect" in log
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


# ---- a folder that somebody sent ----


@pytest.fixture
def sent(settings_of, tmp_path, monkeypatch):
    """A run's folder that asks for the code of its Item LLM, and the file that this code would write."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    settings, marker, folder = settings_of("HLLM"), tmp_path / "marker", tmp_path / "run"
    llm = tmp_path / "llm"
    shutil.copytree(settings["item_pretrain_dir"], llm)
    run("HLLM", config_dict={**settings, "item_pretrain_dir": llm, "epochs": 1}, run_dir=folder)
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Own:\n    pass\n"
    (llm / "sent_code.py").write_text(code)
    config = json.loads((llm / "config.json").read_text())
    own = dict.fromkeys(("AutoConfig", "AutoModel"), "sent_code.Own")
    (llm / "config.json").write_text(json.dumps({**config, "auto_map": own}))
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert "trust_remote_code" not in saved
    asked = {"trust_remote_code": True, "HLLM.trust_remote_code": True}
    (folder / "config.yaml").write_text(yaml.safe_dump({**saved, **asked}))
    return folder, marker


def test_a_run_folder_cannot_allow_itself_to_run_code(sent):
    folder, marker = sent
    assert load_run(folder).config["trust_remote_code"] is False
    evaluate_run(folder)
    run(config_dict={"resume": True, "epochs": 2}, run_dir=folder)
    assert read_json(folder / "costs.json")["epochs"] == 2
    assert not marker.exists() and not any("trust_remote_code" in key for key in read_settings(folder))
    with pytest.raises(ModelError):  # the code is run, and is no model
        load_run(folder, {"trust_remote_code": True})
    assert marker.exists()


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


# ---- a run goes on ----


class Killed(BaseException):
    """Nobody catches it, like a signal."""


@pytest.fixture
def killed_at(monkeypatch):
    """Ends the process, as it were, in the second batch of an epoch; losses of all batches are remembered."""
    losses = []

    def at(epoch, saving=None):
        class Watched(Trainer):
            def _show(self, bar, loss):
                if self.epochs_run == epoch and len(losses) % self.per_epoch == 1:
                    raise Killed
                losses.append(loss)

            def _prepare(self, train_data):
                self.per_epoch = len(train_data)
                super()._prepare(train_data)

            def _save_last(self, train_data):
                if saving == self.epochs_run - 1:
                    raise Killed
                super()._save_last(train_data)

        monkeypatch.setattr(experiment, "Trainer", Watched)
        return losses

    return at


RESUMED = {
    "SASRec": {"epochs": 5, "hidden_dropout_prob": 0.4, "gradient_accumulation_steps": 2},
    "HLLM": {"epochs": 4, "scheduler": "cosine", "item_learning_rate": 1e-3, "train_batch_size": 8},
    "BPR": {"epochs": 4, "learning_rate": 0.05},
}


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("saving", [False, True], ids=["in an epoch", "between best and last"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(settings_of, killed_at, tmp_path, name, saving):
    settings = {**settings_of(name), **RESUMED[name]}
    losses = killed_at(None)
    whole = run(name, config_dict=settings, run_dir=tmp_path / "whole")
    expected = losses[:]
    losses.clear()
    killed_at(None, saving=2) if saving else killed_at(2)
    with pytest.raises(Killed):
        run(name, config_dict=settings, run_dir=tmp_path / "killed")
    per_epoch = len(expected) // settings["epochs"]
    seen = losses[: 2 * per_epoch]
    losses.clear()
    torch.rand(7), np.random.rand(3)  # another process starts from anything
    killed_at(None)
    resumed = run(run_dir=tmp_path / "killed", config_dict={"resume": True})
    assert seen + losses == expected
    assert {**resumed, "run_dir": None} == {**whole, "run_dir": None}
    for part in ("best", "last"):
        for file in ("weights.safetensors", "training.safetensors")[: 1 if part == "best" else 2]:
            ours, theirs = (read_tensors(tmp_path / folder / part / file) for folder in ("killed", "whole"))
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    for file in ("ranks-valid.npz", "ranks-test.npz"):
        ours, theirs = (np.load(tmp_path / folder / file) for folder in ("killed", "whole"))
        assert all(np.array_equal(ours[key], theirs[key]) for key in ("user", "target", "rank"))
    ours, theirs = (read_json(tmp_path / folder / "costs.json") for folder in ("killed", "whole"))
    same = ("epochs", "best_epoch", "converged", "stop_reason", "parameters_total")
    assert [ours[key] for key in same] == [theirs[key] for key in same]
    assert (tmp_path / "killed" / "config.yaml").read_text() == (tmp_path / "whole" / "config.yaml").read_text()


def test_a_run_killed_before_its_first_checkpoint_starts_again(settings_of, killed_at, tmp_path):
    killed_at(0)
    with pytest.raises(Killed):
        run("SASRec", config_dict=settings_of("SASRec"), run_dir=tmp_path / "a")
    losses = killed_at(None)
    losses.clear()
    resumed = run(run_dir=tmp_path / "a", config_dict={"resume": True})
    whole = run("SASRec", config_dict=settings_of("SASRec"), run_dir=tmp_path / "b")
    assert resumed["test_result"] == whole["test_result"] and losses[: len(losses) // 2] == losses[len(losses) // 2 :]


def test_only_a_run_goes_on(settings_of, tmp_path):
    """A mistyped folder is not begun anew, and what is in it stays."""
    for name in ("last", "best.old", "metrics.json"):
        (tmp_path / "other" / name).mkdir(parents=True)
    (tmp_path / "other" / "run.log").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for folder in (tmp_path / "other", tmp_path / "gone"):
        with pytest.raises(ConfigError, match=f"there is no run in {folder}: no config.yaml"):
            run("Pop", config_dict={**settings_of("Pop"), "resume": True}, run_dir=folder)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "other" / "run.log").read_text() == "mine"


def test_a_run_killed_while_its_last_checkpoint_was_replaced_goes_on(settings_of, tmp_path):
    settings = settings_of("SASRec")
    run("SASRec", config_dict=settings, run_dir=tmp_path / "a")
    for part in ("best", "last"):
        (tmp_path / "a" / part).rename(tmp_path / "a" / f".{part}.replaced")
    load_run(tmp_path / "a")
    resumed = run(config_dict={"resume": True, "epochs": 3}, run_dir=tmp_path / "a")
    whole = run("SASRec", config_dict={**settings, "epochs": 3}, run_dir=tmp_path / "b")
    assert resumed["test_result"] == whole["test_result"]


def test_files_given_when_a_run_goes_on_win_over_its_own(settings_of, tmp_path):
    run("Pop", config_dict={**settings_of("Pop"), "seed": 1}, run_dir=tmp_path / "run")
    (tmp_path / "more.yaml").write_text("seed: 2\nepochs: 7\n")
    run("Pop", None, tmp_path / "more.yaml", {"resume": True, "epochs": 8}, run_dir=tmp_path / "run")
    assert [read_settings(tmp_path / "run")[key] for key in ("seed", "epochs")] == [2, 8]


def test_a_finished_run_taken_up_again_stays_as_it_is(settings_of, killed_at, tmp_path):
    settings = {**settings_of("SASRec"), "epochs": 30, "stopping_step": 0, "learning_rate": 0.05}
    losses = killed_at(None)
    first = run("SASRec", config_dict=settings, run_dir=tmp_path / "run")
    costs = read_json(tmp_path / "run" / "costs.json")
    assert costs["stop_reason"] == "early stopping" and costs["epochs"] < 30
    losses.clear()
    assert run("SASRec", "toy", config_dict={"resume": True}, run_dir=tmp_path / "run") == first
    assert losses == []
    again = read_json(tmp_path / "run" / "costs.json")
    same = ("epochs", "best_epoch", "converged", "stop_reason", "training_seconds")
    assert [again[key] for key in same] == [costs[key] for key in same]


def test_a_finished_run_goes_on_with_more_epochs(settings_of, tmp_path):
    settings = {**settings_of("SASRec"), "hidden_dropout_prob": 0.3}
    run("SASRec", config_dict=settings, run_dir=tmp_path / "a")
    longer = run(config_dict={"resume": True, "epochs": 4}, run_dir=tmp_path / "a")
    whole = run("SASRec", config_dict={**settings, "epochs": 4}, run_dir=tmp_path / "b")
    assert longer["test_result"] == whole["test_result"]
    assert load_run(tmp_path / "a").config["epochs"] == 4


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
