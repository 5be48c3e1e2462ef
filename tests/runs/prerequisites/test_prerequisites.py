"""Runs that come first: made once, found again, gone on with, made anew for other data, and taken from a table."""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from recbole_hllm import Config, load_run, run
from recbole_hllm.errors import ConfigError
from recbole_hllm.runs.prerequisites import complete
from recbole_hllm.storage.cache import locked
from recbole_hllm.storage.files import read_json
from recbole_hllm.tables.side_by_side import compare
from recbole_hllm.training.trainer import Trainer


def table_of(folder):
    return load_file(Path(folder) / "best" / "weights.safetensors")["model.item_embedding.weight"]


# ---- made first, and found again ----


def test_a_run_trains_what_it_needs_and_says_so(keys, tmp_path, capsys):
    run("E4SRec", config_dict={**keys(), "state": "info"}, run_dir=tmp_path / "run")
    (folder,) = (tmp_path / "cache").glob("SASRec-toy-*")
    said = f"item_table is empty: a SASRec is trained first and kept in {folder}"
    ours, theirs = (path.read_text() for path in (tmp_path / "run" / "run.log", folder / "run.log"))
    assert said in ours and "E4SRec on toy" in ours and "SASRec on toy" in theirs and "E4SRec" not in theirs
    assert "SASRec on toy" not in ours, "each line is in one file"
    shown = capsys.readouterr().err
    assert said in shown and shown.count(" SASRec on toy") == 1 and shown.count("E4SRec on toy") == 1, "and shown once"
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["item_table"] == str(folder) and saved["model"] == "E4SRec"
    table = load_run(tmp_path / "run").model.item_table.weight
    assert (table[1:] == table_of(folder)[1:]).all() and table[1:].abs().min() > 0


def test_the_next_run_finds_it_without_training(made, caplog):
    first, started = made()
    assert started == [("SASRec", False)]
    weights = Path(first["item_table"]) / "best" / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    caplog.set_level("INFO")
    again, started = made(epochs=7, learning_rate=0.5, user_llm_layers=1, state="error", topk=[1, 10], worker=0)
    assert started == [] and again["item_table"] == first["item_table"] and weights.stat().st_mtime_ns == written
    assert caplog.messages == [f"item_table: the SASRec in {first['item_table']}"]


def test_it_has_the_data_split_and_evaluation_of_the_run_that_needs_it(made):
    shared = {"MAX_ITEM_LIST_LENGTH": 3, "seed": 5, "mask_history": True, "train_user_fraction": 0.9,
              "eval_args": {"split": {"LS": "valid_only"}, "mode": "uni3"}, "valid_metric": "NDCG@3"}  # fmt: skip
    config, _ = made(**shared, learning_rate=0.123, epochs=4, item_table_keys={"n_heads": 1, "epochs": 2})
    theirs = yaml.safe_load((Path(config["item_table"]) / "config.yaml").read_text())
    for key in {**shared, "dataset": None, "metrics": None, "user_inter_num_interval": None}:
        assert theirs[key] == config.settings[key], key
    assert (theirs["hidden_size"], theirs["epochs"], theirs["n_heads"]) == (8, 2, 1), "item_embed_dim, item_table_keys"
    assert theirs["learning_rate"] == 0.001 and theirs["model"] == "SASRec"


@pytest.mark.parametrize(
    "changed",
    [{"seed": 3}, {"item_embed_dim": 4}, {"MAX_ITEM_LIST_LENGTH": 4}, {"item_table_keys": {"epochs": 2}},
     {"eval_args": {"split": {"LS": "valid_only"}}}, {"valid_metric": "NDCG@3"}],
)  # fmt: skip
def test_what_makes_another_table_makes_another_run(made, changed):
    first, _ = made()
    other, started = made(**changed)
    assert started == [("SASRec", False)] and other["item_table"] != first["item_table"]
    assert made()[1] == [], "the first is still there"


def test_other_content_at_the_same_place_is_another_run(made, keys, tmp_path):
    """A table trained anew into its folder, and a language model whose weights were replaced."""
    table, sasrec = tmp_path / "table", {**keys("SASRec"), "hidden_size": 8}
    run("SASRec", config_dict=sasrec, run_dir=table)
    first, started = made("SLMRec", item_table=str(table))
    assert started == [("E4SRec", False)] and made("SLMRec", item_table=str(table))[1] == []
    shutil.rmtree(table)
    run("SASRec", config_dict={**sasrec, "seed": 5}, run_dir=table)
    second, started = made("SLMRec", item_table=str(table))
    assert started == [("E4SRec", False)] and second["teacher"] != first["teacher"]
    table.rename(tmp_path / "moved")
    assert made("SLMRec", item_table=str(tmp_path / "moved"))[1] == [], "where it lies is nothing to the teacher"


def test_a_language_model_whose_weights_were_replaced(made, tiny_llm):
    folder = Path(tiny_llm("llama", num_hidden_layers=4))
    keys = {"user_pretrain_dir": str(folder), "user_llm_init": True, "user_llm_config": None}
    assert made("SLMRec", **keys)[1] == [("E4SRec", False)] and made("SLMRec", **keys)[1] == []
    weights = folder / "model.safetensors"
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights, metadata={"format": "pt"})
    assert made("SLMRec", **keys)[1] == [("E4SRec", False)]


def test_a_deleted_cache_is_made_again(keys, tmp_path):
    """A run's folder names what it needed; to go on and to repeat the run need no more than its keys."""
    run("SLMRec", config_dict=keys("SLMRec"), run_dir=tmp_path / "run")
    expected = read_json(tmp_path / "run" / "metrics.json")["test_result"]
    shutil.rmtree(tmp_path / "cache")
    again = run(config_file_list=[tmp_path / "run" / "config.yaml"], run_dir=tmp_path / "again")
    assert again["test_result"] == expected
    shutil.rmtree(tmp_path / "cache")
    assert run(config_dict={"resume": True}, run_dir=tmp_path / "run")["test_result"] == expected


def test_keys_of_a_run_that_is_there_already(made, caplog):
    """They made it where it is of the cache, and say nothing where the user names one."""
    first, _ = made("SLMRec", teacher_keys={"user_llm_layers": 4})
    made("SLMRec", teacher_keys={"user_llm_layers": 4}, teacher=first["teacher"])
    assert "has no effect" not in caplog.text
    named = Path(first["teacher"]).rename(Path(first["teacher"]).with_name("mine"))
    made("SLMRec", teacher_keys={"user_llm_layers": 6}, teacher=str(named), item_table="/no/where")
    said = [record.message for record in caplog.records if "has no effect" in record.message]
    assert said[:2] == [
        "teacher_keys has no effect: teacher names a run that is trained already",
        "item_table has no effect: teacher names a run that is trained already",
    ]


def test_a_repeated_run_keeps_what_it_needed_and_says_what_that_ignores(keys, tmp_path, caplog):
    run("SLMRec", config_dict=keys("SLMRec"), run_dir=tmp_path / "run")
    file, made = [tmp_path / "run" / "config.yaml"], set((tmp_path / "cache").glob("[!.]*"))
    caplog.clear()
    run(config_file_list=file, run_dir=tmp_path / "again")
    assert "no effect" not in caplog.text
    for number, changed in enumerate(({"seed": 2021}, {"teacher_keys": {"user_llm_layers": 2}})):
        caplog.clear()
        run(config_file_list=file, config_dict=changed, run_dir=tmp_path / f"other-{number}")
        (said,) = (record.message for record in caplog.records if "no effect" in record.message)
        assert said.startswith("teacher: ") and said.endswith("--teacher=None makes another")
    assert set((tmp_path / "cache").glob("[!.]*")) == made
    run(config_file_list=file, config_dict={"seed": 2021, "teacher": None}, run_dir=tmp_path / "other")
    assert len(set((tmp_path / "cache").glob("E4SRec-*"))) == 2


def test_changed_data_have_a_run_of_their_own(made, write_dataset, tmp_path):
    rows = [(f"u{user}", f"i{(3 * user + step) % 9}", 10 * step + user) for user in range(8) for step in range(6)]
    write_dataset(tmp_path, "mine", rows)
    keys = {"data_path": str(tmp_path), "dataset": "mine", "topk": [5], "valid_metric": "MRR@5"}
    first, started = made(**keys)
    assert started and made(**keys)[1] == []
    write_dataset(tmp_path, "mine", [*rows, ("u0", "i8", 10_000)])
    second, started = made(**keys)
    assert started == [("SASRec", False)] and second["item_table"] != first["item_table"]
    run("E4SRec", config_dict=second.settings, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="was trained on other data than this run: its training differ"):
        run("E4SRec", config_dict={**second.settings, "item_table": first["item_table"]}, run_dir=tmp_path / "other")


def test_features_count_where_they_filter(made, write_dataset, tmp_path):
    rows = [(f"u{user}", f"i{(3 * user + step) % 9}", 10 * step + user) for user in range(8) for step in range(6)]

    def year(number):
        return "item_id:token\tyear:float", [(f"i{item}", number + item) for item in range(9)]

    keys = {"data_path": str(tmp_path), "dataset": "mine", "load_col": None, "topk": [5], "valid_metric": "MRR@5"}
    filtered = {**keys, "val_interval": {"year": "[1994,inf)"}}
    write_dataset(tmp_path, "mine", rows, items=year(1990))
    made(**keys)
    made(**filtered)
    write_dataset(tmp_path, "mine", rows, items=year(1991))
    assert made(**keys)[1] == [] and made(**filtered)[1] == [("SASRec", False)]


# ---- interrupted ----


@pytest.mark.parametrize("epochs_before", [0, 1, 2])
def test_an_interrupted_one_goes_on(made, monkeypatch, caplog, epochs_before):
    """Killed before its first whole epoch, between two, and after the last: as if nothing had happened."""
    whole = made(item_table_keys={"n_heads": 1, "epochs": 2}, seed=11)[0]["item_table"]
    table = table_of(whole)
    Path(whole).rename(Path(whole).with_name("whole"))
    epochs = iter(range(9))
    train = Trainer._train_epoch

    def killed(trainer, *arguments, **keywords):
        if next(epochs) == epochs_before:
            raise KeyboardInterrupt
        return train(trainer, *arguments, **keywords)

    monkeypatch.setattr(Trainer, "_train_epoch", killed)
    if epochs_before == 2:
        monkeypatch.setattr("recbole_hllm.runs.run.write_results", killed)
    keys = {"item_table_keys": {"n_heads": 1, "epochs": 2}, "seed": 11}
    with pytest.raises(KeyboardInterrupt):
        made(**keys)
    monkeypatch.undo()
    caplog.set_level("INFO")
    config, started = made(**keys)
    assert started == [("SASRec", True)] and config["item_table"] == whole
    assert f"item_table is empty: the SASRec of a run that ended early goes on in {whole}" in caplog.messages
    assert (table_of(whole) == table).all() and read_json(Path(whole) / "costs.json")["epochs"] == 2
    assert made(**keys)[1] == []


def test_a_resumed_run_completes_what_is_missing(keys, tmp_path):
    """Its own folder says where the table is; a key given now on top may be a row of its table, or empty."""
    run("SASRec", config_dict={**keys("SASRec"), "hidden_size": 8}, run_dir=tmp_path / "t" / "SASRec")
    run_dir = tmp_path / "t" / "E4SRec"
    run("E4SRec", config_dict={**keys(), "item_table": "row:SASRec"}, run_dir=run_dir)
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert saved["item_table"] == str(tmp_path / "t" / "SASRec")
    for given in ({}, {"E4SRec.item_table": "row:SASRec"}):
        assert run(config_dict={**given, "resume": True}, run_dir=run_dir)["run_dir"] == str(run_dir)
    (tmp_path / "t").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=f"^item_table: there is nothing at {tmp_path}/t/SASRec; give the folder"):
        run(config_dict={"resume": True}, run_dir=tmp_path / "moved" / "E4SRec")
    run(config_dict={"resume": True, "item_table": "row:SASRec"}, run_dir=tmp_path / "moved" / "E4SRec")
    assert not (tmp_path / "cache").exists()


def test_what_is_being_trained_first_may_be_interrupted(keys, monkeypatch, tmp_path):
    """Its folder says already how the run that needs it is to go on."""
    monkeypatch.setattr(Trainer, "_train_epoch", lambda *arguments, **keywords: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("E4SRec", config_dict=keys(), run_dir=tmp_path / "run")
    assert "E ZeroDivisionError: division by zero" in (tmp_path / "run" / "run.log").read_text()
    monkeypatch.undo()
    run(config_dict={"resume": True}, run_dir=tmp_path / "run")
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert [saved["item_table"]] == [str(folder) for folder in (tmp_path / "cache").glob("SASRec-*")]


# ---- two floors ----


def test_a_teacher_and_its_table_are_made_in_turn(made):
    config, started = made("SLMRec")
    assert started == [("E4SRec", False)]
    teacher = yaml.safe_load((Path(config["teacher"]) / "config.yaml").read_text())
    assert (teacher["user_llm_layers"], teacher["epochs"]) == (4, 1), "its own"
    assert config["user_llm_layers"] == 2, "the student's"
    assert teacher["item_table"] == made("E4SRec")[0]["item_table"], "the same table as any E4SRec's"
    other_student = {"distill_cos": 0.3, "blocks": 1, "reference": ["distillation_sum"]}
    assert made("SLMRec", **other_student)[1] == [], "it is nothing to the teacher"
    assert made("SLMRec", teacher_keys={"user_llm_layers": 3}, blocks=1)[1] == [("E4SRec", False)]


@pytest.mark.parametrize("given", [{"distillation": "online"}, {"item_table": "somewhere"}])
def test_only_what_is_empty_is_made(made, given, tmp_path):
    model = "SLMRec" if "distillation" in given else "E4SRec"
    config, started = made(model, **given)
    assert started == ([("SASRec", False)] if model == "SLMRec" else [])
    assert Path(config["item_table"]).is_absolute() and config["item_table"] == config.settings["item_table"]


def test_models_that_need_nothing(made, tmp_path):
    before = Config("SASRec", config_dict={"data_path": "x", "dataset": "toy"})
    settings = dict(before.settings)
    complete(before, None, None)
    assert before.settings == settings


# ---- rows of a table ----


def test_a_row_of_the_table(settings_of, keys, tmp_path, started):
    """SASRec, and two variants that are built on it."""
    shared = settings_of("SASRec")
    own = {f"E4SRec.{key}": value for key, value in settings_of("E4SRec").items() if value != shared.get(key)}
    given = {
        **settings_of("Pop"), "cache_dir": str(tmp_path / "cache"), "sanity_rows": False, "epochs": 1, **own,
        "SASRec.hidden_size": 8, "SASRec.n_heads": 2, "E4SRec.item_table": "row:SASRec",
        "E4SRec@user.training_rows": "user",
    }  # fmt: skip
    for key in ("hidden_size", "inner_size", "n_layers", "n_heads", "embedding_size"):
        given.pop(key, None)
    models = ["SASRec", "E4SRec", "E4SRec@user"]
    with pytest.raises(ConfigError, match="E4SRec@late: item_table: row:NoSuch: there is no row NoSuch before it"):
        late = {**given, "E4SRec@late.item_table": "row:NoSuch"}
        compare([*models, "E4SRec@late"], config_dict=late, run_dir=tmp_path / "table")
    result = compare(models, config_dict=given, run_dir=tmp_path / "table")
    assert not result["failed"]
    for row in models[1:]:
        saved = yaml.safe_load((tmp_path / "table" / row / "config.yaml").read_text())
        assert saved["item_table"] == str(tmp_path / "table" / "SASRec")
    assert saved["training_rows"] == "user" and not (tmp_path / "cache").exists()
    assert len({row["test_result"]["mrr@10"] for row in result["rows"]}) > 1


def test_errors_of_rows(made, tmp_path):
    with pytest.raises(ConfigError, match="^item_table: row:SASRec is for a row of a table, and this run is not one"):
        made(item_table="row:SASRec")
    with pytest.raises(ConfigError, match=f"row:SASRec: {tmp_path}/SASRec is not a finished run; the rows .* in order"):
        made(item_table="row:SASRec", run_dir=tmp_path / "E4SRec")


def test_a_row_that_another_row_is_handed(made, keys, tmp_path):
    """A student's table, by name of a row, is that of the teacher that is trained first."""
    table = made()[0]["item_table"]
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "SASRec").symlink_to(table)
    config, started = made("SLMRec", item_table="row:SASRec", run_dir=tmp_path / "table" / "SLMRec")
    assert started == [("E4SRec", False)]
    teacher = yaml.safe_load((Path(config["teacher"]) / "config.yaml").read_text())
    assert teacher["item_table"] == str(tmp_path / "table" / "SASRec")


def test_one_process_at_a_time_makes_it(tmp_path, caplog):
    """The second waits until the first is done, and not for one that died."""
    entry = tmp_path / "cache" / "SASRec-toy"
    imports = "import sys\nfrom pathlib import Path\nfrom recbole_hllm.storage.cache import locked"
    body = "with locked(Path(sys.argv[1]), 'it'): print('has it', flush=True); sys.stdin.read()"
    first = subprocess.Popen(
        [sys.executable, "-c", f"{imports}\n{body}", str(entry)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert first.stdout.readline() == b"has it\n"
    done = threading.Event()

    def second():
        with locked(entry, "it"):
            done.set()

    caplog.set_level("INFO")
    waiting = threading.Thread(target=second)
    waiting.start()
    while "waiting for it" not in caplog.text and not done.is_set():
        time.sleep(0.01)
    assert not done.is_set()
    first.kill()
    first.communicate()
    waiting.join()
    assert done.is_set()


def test_what_two_runs_need_at_once_is_made_once(keys, tmp_path, caplog):
    started = []

    def start(config_dict, run_dir):
        started.append(run_dir)
        while "waiting for it" not in caplog.text and len(started) == 1:
            time.sleep(0.01)
        return run(config_dict=config_dict, run_dir=run_dir)

    caplog.set_level("INFO")
    configs = [Config("E4SRec", config_dict=keys()) for _ in range(2)]
    threads = [threading.Thread(target=complete, args=(config, None, start)) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1 and {config["item_table"] for config in configs} == {str(started[0])}
