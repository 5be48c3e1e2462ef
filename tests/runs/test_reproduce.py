"""A finished run, run again."""

import json

import pytest

from recbole_hllm import cli, run
from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.runs.reproduce import RESULTS, found, reproduce, to_console


@pytest.fixture(scope="module")
def old(settings_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "SASRec"
    run("SASRec", config_dict={**settings_of("SASRec"), "learning_rate": 0.003}, run_dir=folder)
    return folder


def test_the_same_numbers_again(old, toy_data, tmp_path, capsys):
    words = ["reproduce", str(old), f"--run_dir={tmp_path / 'new'}", f"--data_path={toy_data}", "--use_gpu=False"]
    assert cli.main(words) == 0
    result = json.loads((tmp_path / "new" / "reproduced.json").read_text())
    assert result["old"]["test_result"] == result["new"]["test_result"] and result["differences"] == []
    assert result["of"] == str(old) and result["new"]["costs"]["epochs"] == 2
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    value = f"{result['old']['test_result']['ndcg@10']:.4f}"
    assert ["test", "ndcg@10", value, value, "+0.0", "%"] in lines


def test_folders_of_the_old_machine_are_not_used(old, toy_data, tmp_path):
    with pytest.raises(DataError, match="toy") as error:  # which the default data_path has not
        reproduce(str(old), run_dir=tmp_path / "new")
    assert toy_data not in str(error.value)


@pytest.mark.parametrize("key", ["learning_rate", "seed", "topk", "SASRec.n_layers", "evaluate_only"])
def test_a_key_that_makes_another_run_is_refused(old, tmp_path, key):
    with pytest.raises(ConfigError, match=rf"--{key}: reproduce runs a run as it was"):
        reproduce(str(old), tmp_path / "new", {key: "1"})
    assert not (tmp_path / "new").exists()


def test_other_data_and_versions_are_said(old, write_dataset, tmp_path):
    rows = [(f"u{user}", f"i{(user + step) % 11}", step) for user in range(11) for step in range(5)]
    write_dataset(tmp_path / "data", "toy", rows)
    (tmp_path / "copy").mkdir()
    for name in ("config.yaml", "metrics.json", "protocol.json", "versions.json"):
        (tmp_path / "copy" / name).write_bytes((old / name).read_bytes())
    versions = json.loads((tmp_path / "copy" / "versions.json").read_text())
    (tmp_path / "copy" / "versions.json").write_text(json.dumps({**versions, "torch": "1.0"}))
    result = reproduce(str(tmp_path / "copy"), tmp_path / "new", {"data_path": str(tmp_path / "data")})
    data, changed = result["differences"]
    assert data.startswith("The data are not those of the old run: items, item_ids")
    assert changed.startswith("Versions: torch 1.0, now ")
    assert data in to_console(result)


def test_a_folder_with_a_run_is_refused_and_one_that_was_interrupted_goes_on(old, toy_data, tmp_path):
    keys = {"data_path": toy_data, "use_gpu": False}
    reproduce(str(old), tmp_path / "new", keys)
    with pytest.raises(ConfigError, match="already holds a run"):
        reproduce(str(old), tmp_path / "new", keys)
    (tmp_path / "new" / "reproduced.json").unlink()
    result = reproduce(str(old), tmp_path / "new", {**keys, "resume": True})
    assert result["new"]["test_result"] == result["old"]["test_result"]


def test_a_name_of_a_result(old, tmp_path, monkeypatch):
    place = tmp_path / RESULTS / "shop" / "SASRec"
    place.mkdir(parents=True)
    for name in ("config.yaml", "metrics.json"):
        (place / name).write_bytes((old / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert found("shop/SASRec").resolve() == place
    with pytest.raises(ConfigError, match="holds several runs; name one of them, shop/ROW: SASRec"):
        found("shop")
    with pytest.raises(ConfigError, match="there is no run in 'shop/SASrec'.*did you mean 'shop/SASRec'"):
        found("shop/SASrec")
    (place / "metrics.json").unlink()
    with pytest.raises(ConfigError, match=r"is not finished: no metrics\.json"):
        found("shop/SASRec")


def test_numbers_side_by_side():
    old = {"test_result": {"a": 0.5, "b": 0.0, "c": 0.1}, "best_valid_result": None, "costs": {"training_seconds": 3.0}}
    new = {"test_result": {"a": 0.55, "b": 0.0, "d": 0.2}, "best_valid_result": {"a": 1.0}, "costs": {}}
    text = to_console({"old": old, "new": new, "differences": ["Said."]})
    assert text == (
        "                 old     new  difference\n"
        "validation a       –  1.0000           –\n"
        "test a        0.5000  0.5500     +10.0 %\n"
        "test b        0.0000  0.0000           0\n"
        "test c        0.1000       –           –\n"
        "test d             –  0.2000           –\n"
        "training        3.0s       –\n\nSaid.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "reproduce: name a run"),
        (["nothing"], "there is no run in 'nothing'"),
        (["nothing", "--config_files=mine.yaml"], "would make another run"),
        (["nothing", "--model=HLLM,SASRec"], "leave one of the two out"),
    ],
)
def test_wrong_words(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("seed: 1\n")
    assert cli.main(["reproduce", *words]) == 2
    assert message in capsys.readouterr().err
