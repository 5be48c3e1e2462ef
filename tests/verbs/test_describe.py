"""The verb describe."""

import json
import re

import pytest

from recbole_hllm.cli import main


@pytest.fixture
def words(toy_data, tmp_path, monkeypatch):
    """After ``describe toy``, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return ["describe", "toy", f"--data_path={toy_data}", "--use_gpu=False"]


def test_it_prints_tables_and_says_where_the_page_is(words, tmp_path, capsys):
    assert main(words) == 0
    printed = capsys.readouterr().out
    (folder,) = (tmp_path / "runs" / "toy").iterdir()
    assert folder.name.startswith("describe-") and f"runs/toy/{folder.name}: describe.json" in printed
    assert "\nLook at\n=======\n" in printed and re.search(r"\nusers +14\n", printed)
    kept = json.loads((folder / "describe.json").read_text())
    assert (kept["users"], kept["items"], kept["model"]) == (14, 12, "HLLM")
    assert (folder / "describe.html").read_text().startswith("<!DOCTYPE html>")


def test_a_folder_and_keys_of_a_run(words, tmp_path, capsys):
    keys = ["--to", "here", "--model=SASRec", "--user_inter_num_interval=[9,inf)", "--MAX_ITEM_LIST_LENGTH=3"]
    assert main([*words, *keys]) == 0
    kept = json.loads((tmp_path / "here" / "describe.json").read_text())
    assert (kept["users"], kept["model"], kept["history_length"]) == (3, "SASRec", 3)
    assert "toy, with the keys of SASRec, user_inter_num_interval: [9,inf)" in capsys.readouterr().out
    assert main([*words, *keys]) == 2
    assert "to: here already holds a description (describe.json, describe.html)" in capsys.readouterr().err


def test_the_data_set_can_be_a_key(words, capsys):
    assert main(["describe", "--dataset=toy", *words[2:]]) == 0
    assert main([*words, "--dataset=labelled"]) == 2
    assert "given twice, toy and --dataset=labelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    "further, said",
    [
        (["--to"], "--to needs a folder"),
        (["--run_dir=x"], "--to names that of a description"),
        (["--model=Pop,SASRec"], "more than one model asks for 'compare'"),
        (["--trials=3"], "trials asks for 'search'"),
        (["--model=SASRec", "--Pop.seed=1"], "'Pop' is not a model of this run"),
        (["--user_inter_num=3"], "did you mean 'user_inter_num_interval'"),
        (["more"], "'more' belongs to no key"),
    ],
)
def test_words_that_it_cannot_use(words, further, said, capsys, tmp_path):
    assert main([*words, *further]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*"))


def test_data_that_are_not_there(words, capsys, tmp_path):
    assert main(["describe"]) == 2
    assert "dataset is not set" in capsys.readouterr().err
    assert main(["describe", "nothing_like_it", *words[2:]]) == 2
    assert "nothing_like_it.inter" in capsys.readouterr().err
    assert not list(tmp_path.glob("*"))


@pytest.mark.parametrize("asked", [["help", "describe"], ["describe", "--help"], ["describe", "toy", "--help"]])
def test_help(asked, capsys):
    assert main(asked) == 0
    assert "usage: recbole-hllm describe DATASET" in capsys.readouterr().out
