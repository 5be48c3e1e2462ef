"""run() that goes on: after a kill, after its end, with more epochs, and where there is nothing to go on with."""

import shutil

import numpy as np
import pytest
import torch

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs import run as experiment
from recbole_hllm.runs.folder import read_settings
from recbole_hllm.storage.files import read_json
from recbole_hllm.training.checkpoint import read_tensors
from recbole_hllm.training.trainer import Trainer


class Killed(BaseException):
    """Nobody catches it, like a signal."""


@pytest.fixture
def killed_at(monkeypatch):
    """Ends the process, as it were, in the second batch of an epoch; losses of all batches are remembered."""
    losses = []

    def at(epoch, saving=None):
        class Watched(Trainer):
            def train_batch(self, *arguments, **keywords):
                if self.epochs_run == epoch and len(losses) % self.per_epoch == 1:
                    raise Killed
                loss = super().train_batch(*arguments, **keywords)
                losses.append(loss.item())
                return loss

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


@pytest.mark.parametrize(
    "wrong, error",
    [({"stage": 3}, ConfigError), ({"train_batch_size": -1}, ConfigError), ({"hidden_size": 4}, ModelError)],
    ids=["of another strategy", "out of bounds", "of another model than the checkpoint's"],
)
def test_a_wrong_key_given_when_a_run_goes_on_is_forgotten(settings_of, tmp_path, wrong, error):
    run("SASRec", config_dict={**settings_of("SASRec"), "epochs": 1}, run_dir=tmp_path / "run")
    before = read_settings(tmp_path / "run")
    with pytest.raises(error):
        run(run_dir=tmp_path / "run", config_dict={"resume": True, "epochs": 2, **wrong})
    assert read_settings(tmp_path / "run") == before
    run(run_dir=tmp_path / "run", config_dict={"resume": True, "epochs": 2})
    assert read_settings(tmp_path / "run")["epochs"] == 2


def test_keys_of_a_checkpoint_stay_when_what_comes_after_it_fails(settings_of, tmp_path, monkeypatch):
    run("SASRec", config_dict={**settings_of("SASRec"), "epochs": 1}, run_dir=tmp_path / "run")

    class Failing(Trainer):
        def _save_last(self, train_data):
            super()._save_last(train_data)
            raise ModelError("after the checkpoint")

    monkeypatch.setattr(experiment, "Trainer", Failing)
    with pytest.raises(ModelError, match="after the checkpoint"):
        run(run_dir=tmp_path / "run", config_dict={"resume": True, "epochs": 2})
    assert read_settings(tmp_path / "run")["epochs"] == 2


def test_what_is_only_counted_is_counted_again_with_the_keys_of_now(settings_of, tmp_path):
    keys = settings_of("ItemKNN")
    results = {}
    for name, given in (("run", {"k": 1}), ("other", {"k": 9})):
        results[name] = run("ItemKNN", config_dict={**keys, **given}, run_dir=tmp_path / name)["test_result"]
    assert results["run"] != results["other"]
    again = run(run_dir=tmp_path / "run", config_dict={"resume": True, "k": 9})
    assert again["test_result"] == results["other"]


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


@pytest.mark.parametrize("stopping_step", [0, 9], ids=["early stopping", "limit of epochs"])
def test_a_training_that_has_ended_keeps_the_keys_that_made_it(settings_of, tmp_path, stopping_step):
    settings = {**settings_of("SASRec"), "epochs": 5, "stopping_step": stopping_step, "learning_rate": 0.05}
    first = run("SASRec", config_dict=settings, run_dir=tmp_path / "run")
    names = ("config.yaml", "metrics.json", "costs.json", "trained_on.json", "ranks-test.npz")
    before = [(tmp_path / "run" / name).read_bytes() for name in names]
    with pytest.raises(ConfigError, match="^learning_rate: the training in .* was made with 0.05, not with 0.5; train"):
        run(config_dict={"resume": True, "learning_rate": 0.5}, run_dir=tmp_path / "run")
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == before
    again = run(config_dict={"resume": True, "topk": [2, 10], "eval_batch_size": 7}, run_dir=tmp_path / "run")
    assert again["best_valid_score"] == first["best_valid_score"] and "recall@2" in again["test_result"]
    assert read_settings(tmp_path / "run")["topk"] == [2, 10]
    run(config_dict={"resume": True, "epochs": 5 if stopping_step else 900}, run_dir=tmp_path / "run")
    assert read_settings(tmp_path / "run")["epochs"] == 5, "the limit that there was"
    more = {"epochs": 40, "stopping_step": 40, "learning_rate": 0.5}
    run(config_dict={"resume": True, **more}, run_dir=tmp_path / "run")
    assert read_settings(tmp_path / "run")["learning_rate"] == 0.5
    assert read_json(tmp_path / "run" / "costs.json")["epochs"] == 40


def test_keys_are_kept_where_the_last_validation_is_made_again(settings_of, tmp_path, monkeypatch):
    """No step is left, but a checkpoint is written."""
    settings = {**settings_of("SASRec"), "epochs": 2, "save_every_steps": 1, "learning_rate": 0.05}

    class Ending(Trainer):
        def _validate(self, *arguments):
            if self.epochs_run == 2:
                raise Killed
            super()._validate(*arguments)

    monkeypatch.setattr(experiment, "Trainer", Ending)
    with pytest.raises(Killed):
        run("SASRec", config_dict=settings, run_dir=tmp_path / "run")
    monkeypatch.undo()
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="^learning_rate: the training in .* has ended"):
        run(config_dict={"resume": True, "learning_rate": 0.5}, run_dir=tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    again = run(config_dict={"resume": True}, run_dir=tmp_path / "run")
    whole = run("SASRec", config_dict=settings, run_dir=tmp_path / "whole")
    assert {**again, "run_dir": None} == {**whole, "run_dir": None}


def test_what_a_training_read_may_lie_elsewhere_but_not_be_another(settings_of, tmp_path):
    for seed, name in enumerate(("one", "other")):
        run("SASRecCE", config_dict={**settings_of("SASRecCE"), "seed": seed}, run_dir=tmp_path / name)
    given = {**settings_of("SASRecCE"), "item_init": str(tmp_path / "one")}
    first = run("SASRecCE", config_dict=given, run_dir=tmp_path / "run")
    resumed = {"resume": True, "item_init": str(tmp_path / "other")}
    with pytest.raises(ConfigError, match="^item_init: the training in .* was made with '.*/one', not with '.*/other'"):
        run(config_dict=resumed, run_dir=tmp_path / "run")
    for place, to in (("copied", shutil.copytree), ("moved", shutil.move)):
        to(read_settings(tmp_path / "run")["item_init"], tmp_path / place)
        resumed["item_init"] = str(tmp_path / place)
        assert run(config_dict=resumed, run_dir=tmp_path / "run")["test_result"] == first["test_result"]
        assert read_settings(tmp_path / "run")["item_init"] == resumed["item_init"]


def test_a_value_that_is_read_back_otherwise_is_no_other_value(settings_of, tmp_path):
    """RecBole's default of FEARec's fredom_type is the text None."""
    first = run("FEARec", config_dict={**settings_of("FEARec"), "epochs": 1, "n_layers": 2}, run_dir=tmp_path / "run")
    assert run(config_dict={"resume": True}, run_dir=tmp_path / "run") == first


def test_a_run_of_so_many_steps_goes_on_with_more(settings_of, tmp_path):
    settings = {**settings_of("SASRec"), "train_batch_size": 8, "epochs": 9}
    run("SASRec", config_dict={**settings, "max_steps": 3}, run_dir=tmp_path / "a")
    costs = read_json(tmp_path / "a" / "costs.json")
    assert (costs["steps"], costs["epochs"], costs["stop_reason"]) == (3, 1, "limit of 3 steps")
    run(config_dict={"resume": True, "max_steps": 5}, run_dir=tmp_path / "a")
    costs = read_json(tmp_path / "a" / "costs.json")
    assert (costs["steps"], costs["epochs"], costs["stop_reason"]) == (5, 1, "limit of 5 steps")


def test_a_finished_run_goes_on_with_more_epochs(settings_of, tmp_path):
    settings = {**settings_of("SASRec"), "hidden_dropout_prob": 0.3}
    run("SASRec", config_dict=settings, run_dir=tmp_path / "a")
    longer = run(config_dict={"resume": True, "epochs": 4}, run_dir=tmp_path / "a")
    whole = run("SASRec", config_dict={**settings, "epochs": 4}, run_dir=tmp_path / "b")
    assert longer["test_result"] == whole["test_result"]
    assert load_run(tmp_path / "a").config["epochs"] == 4
