"""Weights are of the data that they were trained on, whose ids are numbers in the order of the files."""

import shutil

import pytest
import yaml

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, Damaged
from recbole_hllm.runs.run import evaluate_run
from recbole_hllm.storage.files import read_json


@pytest.fixture
def settings(settings_of, tmp_path):
    """Keys of a run on a copy of the toy data."""
    keys = settings_of("SASRec")
    shutil.copytree(keys["data_path"], tmp_path / "data")
    return {**keys, "data_path": str(tmp_path / "data")}


@pytest.fixture
def lines(tmp_path):
    """(change) -> the interactions of the copy are changed: a function of their lines after the header."""

    def change(how):
        path = tmp_path / "data" / "toy" / "toy.inter"
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *how(rows)]) + "\n")

    return change


@pytest.mark.parametrize("name", ["Pop", "SASRec", "BPR"])
def test_the_same_rows_in_another_order_are_refused(settings, lines, tmp_path, name):
    run(name, config_dict=settings, run_dir=tmp_path / "r")
    load_run(tmp_path / "r")
    lines(lambda rows: rows[::-1])
    for again in (load_run, evaluate_run):
        with pytest.raises(ConfigError, match="r: the weights are of data with other numbers of item_id"):
            again(tmp_path / "r")


def test_a_filter_that_gives_other_numbers_is_refused(settings, tmp_path):
    run("SASRec", config_dict=settings, run_dir=tmp_path / "r")
    with pytest.raises(ConfigError, match="other numbers of item_id: numbers follow the order of the files"):
        evaluate_run(tmp_path / "r", {"val_interval": {"timestamp": "[1000002000,inf)"}})


def test_numbers_of_users_count_where_the_model_knows_them(settings, lines, tmp_path, caplog):
    """The first user's rows come last: items are met in the same order, since another user begins with the same one."""
    runs = {name: run(name, config_dict=settings, run_dir=tmp_path / name) for name in ("BPR", "SASRec")}
    lines(lambda rows: [row.replace("u0\t", "first\t") for row in rows])
    assert evaluate_run(tmp_path / "SASRec")["test_result"] == runs["SASRec"]["test_result"]
    with pytest.raises(ConfigError, match="other numbers of user_id"):
        evaluate_run(tmp_path / "BPR")


def test_other_interactions_are_told_and_no_training_goes_on_with_them(settings, lines, tmp_path, caplog):
    run("SASRec", config_dict=settings, run_dir=tmp_path / "r")
    before = (tmp_path / "r" / "config.yaml").read_text()
    lines(lambda rows: rows + [rows[-1].rpartition("\t")[0] + "\t1900000000"])
    with pytest.raises(ConfigError, match="the interactions to train on are not those of its training .* begin"):
        run(config_dict={"resume": True, "epochs": 3}, run_dir=tmp_path / "r")
    assert (tmp_path / "r" / "config.yaml").read_text() == before
    caplog.clear()
    evaluate_run(tmp_path / "r")
    assert "what is tested now may have been among them" in caplog.text


def test_runs_of_earlier_versions_say_what_their_protocol_says(settings, lines, tmp_path):
    run("SASRec", config_dict=settings, run_dir=tmp_path / "r")
    (tmp_path / "r" / "trained_on.json").unlink()
    load_run(tmp_path / "r")
    lines(lambda rows: rows[::-1])
    with pytest.raises(ConfigError, match="other numbers of item_id"):
        load_run(tmp_path / "r")
    (tmp_path / "r" / "protocol.json").unlink()
    load_run(tmp_path / "r")  # it does not say


def test_a_new_run_in_a_folder_of_a_failed_one_is_of_its_own_data(settings, lines, tmp_path):
    with pytest.raises(ConfigError):
        run("SASRec", config_dict={**settings, "n_heads": 3}, run_dir=tmp_path / "r")
    lines(lambda rows: rows[::-1])
    run("SASRec", config_dict=settings, run_dir=tmp_path / "r")
    load_run(tmp_path / "r")


@pytest.mark.parametrize(
    "key, value",
    [("valid_metric", "NDCG@3"), ("mask_history", True), ("eval_users", 5), ("eval_args", {"mode": "uni3"})],
)
def test_epochs_of_one_training_are_compared_in_one_way(settings, tmp_path, key, value):
    run("SASRec", config_dict=settings, run_dir=tmp_path / "r")
    with pytest.raises(ConfigError, match=f"{key}: epochs of the training in .*r were compared with "):
        run(config_dict={"resume": True, "epochs": 3, key: value}, run_dir=tmp_path / "r")
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["epochs"] == settings["epochs"]


def test_what_only_counts_counts_again_on_other_data(settings, lines, tmp_path):
    run("EASE", config_dict=settings, run_dir=tmp_path / "r")
    before = read_json(tmp_path / "r" / "trained_on.json")
    lines(lambda rows: rows[::-1])
    run(config_dict={"resume": True, "mask_history": True}, run_dir=tmp_path / "r")
    assert read_json(tmp_path / "r" / "trained_on.json") != before
    load_run(tmp_path / "r")


def test_a_run_without_a_checkpoint_begins_with_the_keys_of_now(settings, tmp_path):
    """It has no epochs yet that could have been compared otherwise."""
    run("SASRec", config_dict=settings, run_dir=tmp_path / "r")
    for name in ("best", "last", "previous"):
        shutil.rmtree(tmp_path / "r" / name, ignore_errors=True)
    run(config_dict={"resume": True, "valid_metric": "NDCG@3"}, run_dir=tmp_path / "r")
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["valid_metric"] == "NDCG@3"


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_damaged_file_is_named(settings, tmp_path, text):
    run("Pop", config_dict=settings, run_dir=tmp_path / "r")
    (tmp_path / "r" / "trained_on.json").write_text(text)
    with pytest.raises(Damaged, match=r"trained_on\.json"):
        load_run(tmp_path / "r")
