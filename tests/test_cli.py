"""The command line: how words become keys, what it prints and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recbole_hllm import cli
from recbole_hllm.errors import ConfigError
from recbole_hllm.verbs.line import parse_arguments

ROOT = Path(__file__).parents[1]


@pytest.fixture
def words_of(settings_of):
    """Keys of a run as words of a command line."""

    def words(model, *without, **keys):
        settings = {**settings_of(model), **keys}
        return [f"--{key}={value}" for key, value in settings.items() if key not in without]

    return words


@pytest.mark.parametrize(
    "argv, arguments",
    [
        (["--a=1", "--b", "2", "--c"], {"a": "1", "b": "2", "c": "True"}),
        (["--a", "--b", "-3"], {"a": "True", "b": "-3"}),
        (["--eval_args={'split': {'LS': 'valid_only'}}"], {"eval_args": "{'split': {'LS': 'valid_only'}}"}),
        (["--item_prompt=key=value --x", "--e="], {"item_prompt": "key=value --x", "e": ""}),
        (["--a=1", "--a", "1"], {"a": "1"}),
        ([], {}),
    ],
)
def test_words_and_keys(argv, arguments):
    assert parse_arguments(argv) == arguments


@pytest.mark.parametrize("argv", [["HLLM"], ["--a=1", "2"], ["-e", "3"], ["--", "x"], ["--a=1", "--a=2"]])
def test_words_that_belong_to_no_key(argv):
    with pytest.raises(ConfigError, match="belongs to no key|given twice"):
        parse_arguments(argv)


@pytest.mark.parametrize("further", [[], ["--plan"]])
def test_keys_of_a_model_that_is_not_run(further, words_of, tmp_path, capsys):
    """Those of a file are for whichever models are run; on the command line they would be lost."""
    file = tmp_path / "shared.yaml"
    file.write_text("GRU4Rec.dropout_prob: 0.1\n")
    words = [*words_of("SASRec"), "--model=SASRec", f"--config_files={file}", f"--run_dir={tmp_path / 'run'}", *further]
    assert cli.main([*words, "--GRU4Rec.dropout_prob=0.2"]) == 2
    assert "--GRU4Rec.dropout_prob: 'GRU4Rec' is not a model of this run (SASRec)" in capsys.readouterr().err
    assert cli.main([*words, "--SASRex.n_layers=1"]) == 2
    assert "'SASRex' is not a model; did you mean 'SASRec'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert cli.main([*words, "--SASRec.n_layers=1"]) == 0


# ---- config files, and values that are empty or name nothing ----


def test_config_file_is_another_name_of_config_files(words_of, tmp_path, capsys):
    """The official HLLM code calls it so."""
    file = tmp_path / "a.yaml"
    file.write_text("seed: 5\n")
    words = ["--model=SASRec", *words_of("SASRec"), f"--run_dir={tmp_path / 'run'}"]
    assert cli.main([*words, f"--config_file={file}", f"--config_files={file}"]) == 2
    assert "--config_file and --config_files are the same" in capsys.readouterr().err
    for name in ("config_file", "config_files"):
        assert cli.main([*words, f"--{name}={tmp_path / 'nosuch.yaml'}"]) == 2
        assert "nosuch.yaml: No such file" in capsys.readouterr().err
        assert cli.main([*words, f"--{name}"]) == 2
        assert f"--{name} needs a path" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert cli.main([*words, "--config_file", str(file)]) == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["seed"] == 5


@pytest.mark.parametrize("word", ["None", "~", "", "null"])
def test_every_word_for_nothing_is_the_default_run_folder_and_no_files(word, words_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = [f"--{key}={word}" for key in ("run_dir", "config_file", "seq_len", "alias_of_item_id", "val_interval")]
    assert cli.main(["--model=Pop", *words_of("Pop"), *keys]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_help_lists_every_key_of_every_model_named(capsys):
    for argv in ([], ["--help"], ["-h"]):
        assert cli.main(argv) == 0
        printed = capsys.readouterr().out
        assert "usage: " in printed and "mask_history:" in printed and "item_pretrain_dir:" not in printed
    assert cli.main(["--help", "--model=HLLM, SASRec"]) == 0
    printed = capsys.readouterr().out
    for key in yaml.safe_load((ROOT / "properties" / "model" / "HLLM.yaml").read_text()):
        assert f"\n{key}:" in printed
    assert "\nhidden_dropout_prob: 0.5" in printed  # of RecBole's own file
    assert cli.main(["--help", "--model=SLMRec"]) == 0
    printed = capsys.readouterr().out
    assert "\nteacher:" in printed and "\nitem_table:" in printed and "\nlearning_rate:" in printed  # and of E4SRec
    assert cli.main(["--help", "--model=SASRek"]) == 2
    assert "SASRek" in capsys.readouterr().err


def test_what_the_launcher_of_deepspeed_adds_is_no_key(words_of, tmp_path, monkeypatch, capsys):
    """It writes the number of the process before the words of the user."""
    words = ["--local_rank=3", *words_of("Pop"), "--model=Pop", f"--run_dir={tmp_path / 'run'}"]
    assert cli.main(words) == 2
    assert "local_rank" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert cli.main(words) == 0


def test_a_run_with_both_spellings_and_files(words_of, tmp_path, monkeypatch, capsys):
    """Files are weaker than words; a file name may have a space in it."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("seed: 1\nepochs: 7\nmodel: GRU4Rec\n")
    Path("b.yaml").write_text("seed: 2\nMAX_ITEM_LIST_LENGTH: 3\n")
    Path("c d.yaml").write_text("seed: 4\n")
    words = [*words_of("SASRec", "MAX_ITEM_LIST_LENGTH", "epochs"), "--model=SASRec"]
    assert cli.main(["--config_files", "a.yaml b.yaml", *words, "--epochs", "1", "--run_dir=x y"]) == 0
    config = yaml.safe_load(Path("x y/config.yaml").read_text())
    keys = ("model", "dataset", "seed", "epochs", "MAX_ITEM_LIST_LENGTH")
    assert [config[key] for key in keys] == ["SASRec", "toy", 2, 1, 3]
    assert cli.main(["--config_files=c d.yaml", *words, "--epochs=1", "--run_dir=z"]) == 0
    assert yaml.safe_load(Path("z/config.yaml").read_text())["seed"] == 4
    assert "error" not in capsys.readouterr().err


def test_evaluation_and_resumption(words_of, tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.main(["--model=SASRec", *words_of("SASRec"), f"--run_dir={folder}"]) == 0
    assert cli.main(["--evaluate_only", "--topk=[12]", f"--run_dir={folder}"]) == 0
    assert json.loads((folder / "evaluation-1.json").read_text())["test_result"]["recall@12"] == 1.0
    assert cli.main(["--resume", "--epochs=3", f"--run_dir={folder}"]) == 0
    assert json.loads((folder / "costs.json").read_text())["epochs"] == 3
    assert cli.main(["--model=SASRec", *words_of("SASRec"), f"--run_dir={folder}"]) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--dataset=toy"], "model is not set"),
        (["--model=SASRec"], "dataset is not set"),
        (["--model=SASRek", "--dataset=toy"], "did you mean 'SASRec'"),
        (["--model=SASRec", "--dataset=toy", "--epoch=3"], "did you mean 'epochs'"),
        (["--model=SASRec", "--dataset=nothing_like_it"], "nothing_like_it.inter"),
        (["--model=SASRec", "--dataset=pixel200k"], "pixel200k"),
        (["--model=SASRec", "--dataset=toy", "--config_files=gone.yaml"], "gone.yaml"),
        (["--evaluate_only"], "run_dir"),
        (["--evaluate_only", "--run_dir=gone"], "no run in gone"),
        (["--resume", "--model=SASRec", "--dataset=toy"], "run_dir"),
        (["--resume", "--model=SASRec", "--dataset=toy", "--run_dir=gone"], "no run in gone"),
        (["--resume", "--model=SASRec,Pop", "--dataset=toy", "--run_dir=gone"], "no table in gone"),
        (["--model=SASRec,SASRec", "--dataset=toy"], "names a model twice"),
        (["SASRec"], "belongs to no key"),
    ],
)
def test_errors_end_with_code_2_and_one_message(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.count("error: ") == 1 and said in printed.err
    assert "Traceback" not in printed.err + printed.out


@pytest.mark.parametrize(
    "broken, said",
    [
        ("timestamp", "bad.inter, line 3"),
        ("strict", "strict_data"),
        ("header", "bad.inter, line 1"),
        ("empty", "bad.inter"),
    ],
)
def test_errors_of_the_data_end_with_code_2(write_dataset, words_of, tmp_path, monkeypatch, capsys, broken, said):
    """Nothing but the message, nothing left behind but the run's folder."""
    monkeypatch.chdir(tmp_path)
    rows = [("u", item, time) for time, item in enumerate("abcdef")] + [("v", "a", 1), ("v", "b", 2)]
    if broken == "timestamp":
        rows[1] = ("u", "b", "noon")
    header = {"header": "user_id:token\titem_id:number\ttimestamp:float"}.get(broken)
    folder = write_dataset(tmp_path, "bad", rows, **({"header": header} if header else {}))
    if broken == "empty":
        (folder / "bad.inter").write_text("")
    keys = {"dataset": "bad", "data_path": tmp_path, "strict_data": broken == "strict", "state": "error"}
    assert cli.main(["--model=SASRec", *words_of("SASRec", **keys)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ")
    assert said in printed.err and "Traceback" not in printed.err
    assert {path.name for path in tmp_path.iterdir()} == {"bad", "runs"}


def test_a_process_ends_with_that_code(words_of, tmp_path):
    words = ["--model=SASRec", *words_of("SASRec", dataset="none", state="error")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_recbole_hllm.py"), *words],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "none.inter" in done.stderr


def test_stopped_by_the_user(words_of, tmp_path, monkeypatch, capsys):
    from recbole_hllm.runs import run as experiment

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "create_dataset", interrupt)
    words = [*words_of("SASRec", "embedding_size"), f"--run_dir={tmp_path / 'run'}"]
    assert cli.main(["--model=SASRec", *words]) == 130
    assert capsys.readouterr().err.strip() == "stopped"
