"""Runs that fail before their first training step: nothing they leave is in the way of the corrected command."""

import importlib.machinery
import sys
import types

import pytest

from recbole_hllm import cli, load_run, run
from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.runs import run as experiment
from recbole_hllm.runs.stages import run_stages
from recbole_hllm.storage.logs import last_error
from recbole_hllm.tables.side_by_side import compare, own_words
from recbole_hllm.training.trainer import Trainer

# Keys that a start fails with, each at another place: the log, the data, the model, the trainer, the first batch.
WRONG = {
    "state": ({"state": "loud"}, ConfigError, "state: 'loud'"),
    "data set": ({"dataset": "nowhere"}, DataError, "there is no"),
    "split": ({"eval_args": {"split": {"LS": "test"}}}, ConfigError, "split LS: 'test'"),
    "sizes": ({"n_heads": 3}, ConfigError, "SASRec cannot be built with these keys: .* not a multiple"),
    "optimizer": ({"scheduler": "cosinus"}, ConfigError, "scheduler: 'cosinus'"),
    "loss": ({"layer_norm_eps": -1e9}, ModelError, "batch 0 is not a number; no weight has changed yet"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_corrected_command_runs_in_the_same_folder(settings_of, tmp_path, wrong):
    keys, kind, said = WRONG[wrong]
    settings, folder = settings_of("SASRec"), tmp_path / "run"
    for _ in range(2):  # the same mistake again is not told as another one
        with pytest.raises(kind, match=said):
            run("SASRec", config_dict={**settings, **keys}, run_dir=folder)
    assert not (folder / "config.yaml").exists()
    result = run("SASRec", config_dict=settings, run_dir=folder)
    expected = run("SASRec", config_dict=settings, run_dir=tmp_path / "other")
    assert result["test_result"] == expected["test_result"]
    with pytest.raises(ConfigError, match="already holds a run"):
        run("SASRec", config_dict=settings, run_dir=folder)


def test_an_unforeseen_error_is_no_run_either(settings_of, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "create_dataset", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("SASRec", config_dict=settings_of("SASRec"), run_dir=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.log"]
    assert last_error(tmp_path / "run" / "run.log") == "ZeroDivisionError: division by zero"


def test_a_run_that_failed_later_stays(settings_of, tmp_path, monkeypatch):
    def stop(*_):
        raise ModelError("stopped")

    monkeypatch.setattr(Trainer, "_validate", stop)
    with pytest.raises(ModelError, match="stopped"):
        run("SASRec", config_dict=settings_of("SASRec"), run_dir=tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="already holds a run .*; name another folder, or resume it"):
        run("SASRec", config_dict=settings_of("SASRec"), run_dir=tmp_path / "run")
    run(run_dir=tmp_path / "run", config_dict={"resume": True})
    assert load_run(tmp_path / "run").model


def test_a_run_that_goes_on_and_fails_can_go_on(settings_of, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(config):
        raise Killed

    monkeypatch.setattr(experiment, "create_dataset", kill)
    with pytest.raises(Killed):
        run("SASRec", config_dict=settings_of("SASRec"), run_dir=tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="SASRec cannot be built"):
        run(run_dir=tmp_path / "run", config_dict={"resume": True, "n_heads": 3})
    run(run_dir=tmp_path / "run", config_dict={"resume": True, "n_heads": 2})


@pytest.mark.parametrize(
    "model, keys, said",
    [
        ("SASRec", {"hidden_act": "gelo"}, "KeyError in 'return ACT2FN.act.': 'gelo'"),
        ("NARM", {"dropout_probs": [0.1]}, "IndexError in '.*self.dropout_probs.1.*': list index out of range"),
        ("NeuMF", {"mlp_hidden_size": []}, "IndexError in .*mlp_hidden_size"),
        ("SASRecCPR", {"reranker_CAN_NUM": "5,3"}, r"self.n_facet .*n_facet_reranker.* == self.n_facet_all"),
    ],
)
def test_what_a_constructor_of_recbole_does_not_check_is_said_with_its_line(settings_of, tmp_path, model, keys, said):
    with pytest.raises(ConfigError, match=f"^{model} cannot be built with these keys: .*{said}"):
        run(model, config_dict={**settings_of("SASRec"), **keys}, run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    "model, keys",
    [("SASRec", {"n_layers": 0}), ("Caser", {"nh": 0}), ("NextItNet", {"kernel_size": 0}), ("ConvNCF", {})],
)
def test_what_shows_in_the_first_batch_of_recbole_is_said_and_frees_the_folder(settings_of, tmp_path, model, keys):
    settings = {**settings_of("SASRec"), "embedding_size": 8, "train_neg_sample_args": None}
    if model == "ConvNCF":
        del settings["train_neg_sample_args"]
    with pytest.raises(ConfigError, match=f"^{model} cannot compute its first batch with these keys and data: "):
        run(model, config_dict={**settings, **keys}, run_dir=tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["run.log"]


# ---- several runs in one folder ----


def test_a_row_keeps_its_log_and_begins_anew(settings_of, tmp_path):
    settings, folder = settings_of("SASRec"), tmp_path / "table" / "SASRec"
    with pytest.raises(ConfigError):
        run("SASRec", config_dict={**settings, "n_heads": 3}, run_dir=folder)
    assert "not a multiple" in last_error(folder / "run.log")
    with pytest.raises(ConfigError):
        run("SASRec", config_dict={**settings, "hidden_act": "none"}, run_dir=folder)
    assert "none" in last_error(folder / "run.log") and "not a multiple" not in last_error(folder / "run.log")
    assert own_words("SASRec", {"resume": True}, folder) == []
    run("SASRec", config_dict=settings, run_dir=folder)
    assert own_words("SASRec", {"resume": True}, folder) == ["--resume=True"]


def test_a_table_of_which_no_row_began_is_made_anew(settings_of, tmp_path, started):
    keys = {**settings_of("SASRec"), "sanity_rows": False, "epochs": 1}
    failed = compare("SASRec,Pop", config_dict={**keys, "dataset": "nowhere"}, run_dir=tmp_path / "table")
    assert failed["failed"] == ["SASRec", "Pop"] and len(started) == 2
    assert "there is no" in last_error(tmp_path / "table" / "Pop" / "run.log")
    table = compare("SASRec,Pop", config_dict=keys, run_dir=tmp_path / "table")
    assert table["failed"] == [] and "test_result" in table["rows"][0]
    with pytest.raises(ConfigError, match="already holds a run"):
        compare("SASRec,Pop", config_dict=keys, run_dir=tmp_path / "table")


def test_stages_of_which_none_began_forget_their_keys(settings_of, tmp_path):
    """A key that is left out of the corrected command is not read in the folder."""
    keys = {**settings_of("HLLM"), "model": "HLLM", "training_stage": 1, "epochs": 1}
    with pytest.raises(DataError, match="no interaction is left"):
        run_stages(config_dict={**keys, "user_inter_num_interval": "[99,inf)"}, run_dir=tmp_path / "stages")
    assert [row["stage"] for row in run_stages(config_dict=keys, run_dir=tmp_path / "stages")["stages"]] == [1]


# ---- wandb ----


@pytest.fixture
def without_wandb(monkeypatch):
    """As if wandb were not installed; and nothing reads data or trains."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(experiment, "create_dataset", lambda config: pytest.fail("reads data"))


def test_a_missing_wandb_is_told_before_data_is_read(settings_of, tmp_path, without_wandb, capsys):
    said = "log_wandb: the package wandb is not installed: pip install wandb"
    keys = {**settings_of("SASRec"), "log_wandb": True}
    with pytest.raises(ConfigError, match=said):
        run("SASRec", config_dict=keys, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match=said):
        compare("SASRec,Pop", config_dict=keys, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match=said):
        run_stages("HLLM", config_dict={**settings_of("HLLM"), "log_wandb": True, "training_stage": 1})
    words = [f"--{key}={value}" for key, value in keys.items()]
    assert cli.main(["--model=SASRec", *words, f"--run_dir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}") and not (tmp_path / "run").exists()


def test_what_is_logged_to_wandb(settings_of, tmp_path, monkeypatch):
    logged = []
    stub = types.ModuleType("wandb")
    stub.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    stub.run, stub.define_metric = None, lambda *_, **__: None

    def init(project, config):
        logged.append(project)
        stub.run = types.SimpleNamespace(summary={})

    stub.init = init
    stub.log = lambda metrics, commit: logged.append(metrics)
    monkeypatch.setitem(sys.modules, "wandb", stub)
    keys = {**settings_of("SASRec"), "log_wandb": True, "wandb_project": "walks"}
    result = run("SASRec", config_dict=keys, run_dir=tmp_path / "run")
    assert logged[0] == "walks"
    assert [metrics["train/epoch"] for metrics in logged[1:] if "train/epoch" in metrics] == [0, 1]
    best = max(metrics.get("valid/mrr@10", 0) for metrics in logged[1:])
    assert best == result["best_valid_score"]
