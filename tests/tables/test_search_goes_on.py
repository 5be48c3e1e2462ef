"""A search after trials that failed, on other data, and after a kill."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from recbole_hllm.errors import ConfigError
from recbole_hllm.tables.search import search
from recbole_hllm.tables.side_by_side import compare


def test_a_trial_that_fails_counts_and_says_why(keys, tmp_path, started, capsys):
    given = {**keys, "sanity_rows": False, "SASRec.search": {"n_heads": [2, 3], "learning_rate": [0.01]}, "trials": 2}
    given["BPR.search"] = {"learning_rate": [1e30, 1e31]}
    done = search(["SASRec", "BPR"], config_dict=given, run_dir=tmp_path / "s")
    assert len(started) == 4 and done["failed"] == ["BPR"]
    of = {(trial["model"], trial["keys"].get("n_heads")): trial for trial in done["trials"]}
    bad, good = of["SASRec", 3], of["SASRec", 2]
    assert "not a multiple" in bad["error"] and not bad["picked"] and good["picked"]
    sasrec, bpr = done["rows"]
    assert sasrec["trial"] == good["trial"]
    first = done["trials"][2]["keys"]["learning_rate"]
    said = f"all of its 2 trials failed, the first with learning_rate {first}: the training loss of epoch 0"
    assert bpr["error"].startswith(said)
    assert "SASRec, trial" in (report := (tmp_path / "s" / "search.md").read_text()) and "not a multiple" in report
    assert "BPR, trial 1 failed with learning_rate 1e+3" in report and "BPR, trial 2 failed with" in report
    best = yaml.safe_load((tmp_path / "s" / "best.yaml").read_text())
    assert best == {"SASRec.n_heads": 2, "SASRec.learning_rate": 0.01}


def test_a_run_that_crashes_is_a_failed_trial_with_one_clear_line(keys, tmp_path, started, monkeypatch, without):
    from recbole_hllm.runs import run as experiment

    def crash(config, data):
        if config["n_heads"] == 1:
            raise ValueError("dl_format [None]\nnot implemented")
        return prepare(config, data)

    prepare = experiment.data_preparation
    monkeypatch.setattr(experiment, "data_preparation", crash)
    given = {**without(keys, "BPR"), "sanity_rows": False, "SASRec.search": {"n_heads": [1, 2]}, "trials": 2}
    done = search(["SASRec"], config_dict=given, run_dir=tmp_path / "s")
    bad, good = sorted(done["trials"], key=lambda trial: trial["keys"]["n_heads"])
    log = tmp_path / "s" / "SASRec" / f"trial-{bad['trial']}" / "run.log"
    assert bad["error"] == f"crashed (ValueError: dl_format [None]); its traceback is in {log}"
    assert "Traceback" in log.read_text() and good["picked"] and done["failed"] == []
    assert f"failed with n_heads 1: {bad['error']}" in (tmp_path / "s" / "search.md").read_text()


def test_trials_on_other_data_do_not_count(keys, toy, tmp_path, started, write_dataset, without):
    """A search that goes on with another data set of the same name; the first finished trial says which one it is."""
    lines = (Path(toy) / "toy" / "toy.inter").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    write_dataset(tmp_path / "other", "toy", [row for row in rows if row[0] != "u3"])
    given, folder = {**without(keys, "BPR"), "sanity_rows": False}, tmp_path / "s"
    search(["SASRec"], config_dict={**given, "trials": 1}, run_dir=folder)
    done = search(config_dict={"resume": True, "trials": 3, "data_path": str(tmp_path / "other")}, run_dir=folder)
    assert len(started) == 3 and [trial["picked"] for trial in done["trials"]] == [True, False, False]
    for trial in done["trials"][1:]:
        assert trial["error"].startswith("not comparable with SASRec, trial 1: ") and trial["valid_score"] is None
        assert "training" in trial["error"] and trial["error"].endswith(" differ")
    again = search(config_dict={"resume": True, "trials": 3, "data_path": toy}, run_dir=folder)
    assert again["trials"] == done["trials"] and len(started) == 3
    # a finished trial is not repeated before its folder is gone
    shutil.rmtree(folder / "SASRec" / "trial-2")
    again = search(config_dict={"resume": True, "trials": 3, "data_path": toy}, run_dir=folder)
    assert ["error" in trial for trial in again["trials"]] == [False, False, True]


def test_a_killed_search_goes_on_with_the_same_numbers(searched, keys, tmp_path, monkeypatch, capsys, in_this_process):
    """Killed inside the second trial of the first model, after its checkpoint."""
    from recbole_hllm.runs import run as experiment

    done, _, _ = searched
    keep, results = experiment.write_results, []

    def killed(*arguments):
        results.append(arguments)
        if len(results) == 2:
            raise KeyboardInterrupt
        keep(*arguments)

    def stopped(command, env, **kept):
        answer = here(command, env, **kept)
        if answer.returncode == 130:  # Ctrl-C reaches both processes
            raise KeyboardInterrupt
        return answer

    started, folder = in_this_process(monkeypatch), tmp_path / "s"
    here = subprocess.run
    monkeypatch.setattr(subprocess, "run", stopped)
    monkeypatch.setattr(experiment, "write_results", killed)
    with pytest.raises(KeyboardInterrupt):
        search(["SASRec", "BPR"], config_dict=keys, run_dir=folder)
    assert started == ["SASRec/trial-1", "SASRec/trial-2"]
    started.clear()
    again = search(config_dict={"resume": True}, run_dir=folder)
    assert started == ["SASRec/trial-2", "SASRec/trial-3", *(f"BPR/trial-{n}" for n in (1, 2, 3)), "s/Markov"]
    assert [trial["valid_result"] for trial in again["trials"]] == [trial["valid_result"] for trial in done["trials"]]
    assert [row["test_result"] for row in again["rows"]] == [row["test_result"] for row in done["rows"]]


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"epochs": 2}, "epochs: the trials in .* began without this value"),
        ({"BPR.search": {"learning_rate": [0.01, 0.1]}}, "BPR.search: the trials"),
        ({"stopping_step": 3}, "stopping_step: the trials"),
        ({"seed": 1}, "seed: the trials"),
    ],
)
def test_a_search_goes_on_with_the_keys_it_began_with(searched, changed, said):
    _, folder, _ = searched
    with pytest.raises(ConfigError, match=said):
        search(config_dict={"resume": True, **changed}, run_dir=folder)


def test_a_table_and_a_search_do_not_go_on_as_each_other(searched, keys, tmp_path, started, without):
    _, folder, _ = searched
    with pytest.raises(ConfigError, match="trials: this is one run of each model"):
        compare([], config_dict={"resume": True}, run_dir=folder)
    compare(["BPR", "Pop"], config_dict={**without(keys, "SASRec"), "trials": None}, run_dir=tmp_path / "t")
    with pytest.raises(ConfigError, match="is a table without trials"):
        search(config_dict={"resume": True, "trials": 2}, run_dir=tmp_path / "t")


def test_a_finished_search_is_compared_and_shown(keys, tmp_path, started, without):
    given = {**without(keys, "BPR"), "sanity_rows": ["Pop"], "trials": 1, "SASRec.search": {"learning_rate": [0.01]}}
    search(["SASRec"], config_dict=given, run_dir=tmp_path / "s")
    started.clear()
    more = {"compare_to": "Pop", "ratios_to": "Pop", "show_recommendations": 2, "resume": True}
    done = search([], config_dict=more, run_dir=tmp_path / "s")
    assert started == [] and done["rows"][0]["tests"]
    assert "Recommendations of SASRec" in (tmp_path / "s" / "table.md").read_text()


def test_a_trial_is_made_by_one_process(keys, tmp_path, started, without, monkeypatch):
    """While one makes it, it holds the lock that another one waits for."""
    from recbole_hllm.storage.locks import held
    from recbole_hllm.tables import search as module

    seen = []

    def locked(model, file, folder, words, lock):
        with held(folder.with_name(f".{folder.name}.lock"), wait=False) as other:
            seen.append((folder.name, other is None, bool(lock.descriptors)))
        return run_alone(model, file, folder, words, lock)

    run_alone = module.run_alone
    monkeypatch.setattr(module, "run_alone", locked)
    given = {**without(keys, "BPR"), "sanity_rows": False, "trials": 2, "SASRec.search": {"learning_rate": [0.01, 0.1]}}
    search(["SASRec"], config_dict=given, run_dir=tmp_path / "s")
    assert seen == [("trial-1", True, True), ("trial-2", True, True)] and not list((tmp_path / "s").rglob("*.lock"))
