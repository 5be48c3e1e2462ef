"""Tables whose rows have several seeds, and that several processes make."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from recbole_hllm.errors import ConfigError
from recbole_hllm.runs.prerequisites import _row
from recbole_hllm.tables.layout import folder_of, jobs_of, rows_of
from recbole_hllm.tables.search import search
from recbole_hllm.tables.side_by_side import compare, prepare


@pytest.fixture(scope="module")
def keys(settings_of):
    """Of BPR, SASRec and Pop on the toy data, to early stopping."""
    return {**settings_of("SASRec"), "topk": [3], "valid_metric": "MRR@3", "metrics": ["MRR", "Hit"], "epochs": 30,
            "stopping_step": 0, "learning_rate": 0.01, "sanity_rows": False, "compare_to": "Pop"}  # fmt: skip


@pytest.fixture(scope="module")
def table(keys, tmp_path_factory, in_this_process):
    """The folder of a table with two seeds and both masks, and its rows."""
    folder = tmp_path_factory.mktemp("seeds") / "t"
    with pytest.MonkeyPatch.context() as monkeypatch:
        started = in_this_process(monkeypatch)
        given = {**keys, "seeds": [3, 1], "mask_history": "both"}
        done = compare(["BPR", "Pop", "SASRec"], config_dict=given, run_dir=folder)
    assert started == ["BPR/seed-3", "t/Pop", "SASRec/seed-3", "BPR/seed-1", "SASRec/seed-1"] and not done["failed"]
    return folder, done


def test_a_row_is_the_mean_of_its_runs(table):
    folder, done = table
    bpr, pop, _ = done["rows"]
    own = [json.loads((folder / "BPR" / f"seed-{seed}" / "metrics.json").read_text()) for seed in (3, 1)]
    assert own[0]["test_result"] != own[1]["test_result"]
    for metric in ("mrr@3", "hit@3", "mrr@3-masked", "hit@3-masked"):
        values = [run["test_result"][metric] for run in own]
        assert bpr["test_result"][metric] == pytest.approx(np.mean(values))
        assert bpr["deviations"][metric] == pytest.approx(np.std(values, ddof=1))
    assert "deviations" not in pop and not (folder / "Pop" / "seed-3").exists()
    configs = [yaml.safe_load((path / "config.yaml").read_text()) for path in
               (folder / "BPR/seed-3", folder / "BPR/seed-1", folder / "Pop")]  # fmt: skip
    assert [(config["seed"], config["data_seed"]) for config in configs] == [(3, 3), (1, 3), (3, 3)]
    assert not any("seeds" in config for config in configs)
    assert done["header"]["seed"] == "3, 1, one run with each; rows that only count: 3"


def test_tests_against_a_row_stand_everywhere(table, capsys):
    folder, done = table
    bpr, pop, sasrec = done["rows"]
    assert "tests" not in pop and set(bpr["tests"]) == {"mrr@3", "hit@3", "mrr@3-masked", "hit@3-masked"}
    for row in (bpr, sasrec):
        for metric, test in row["tests"].items():
            assert test["users"] == 14
            assert test["difference"] == pytest.approx(row["test_result"][metric] - pop["test_result"][metric])
            assert test["verdict"] in ("better", "worse", "no difference found")
    content = json.loads((folder / "table.json").read_text())
    assert content["rows"][0]["tests"] == bpr["tests"] and content["header"]["compare_to"] == "Pop"
    with open(folder / "table.csv", newline="") as file:
        line = next(csv.DictReader(file))
    assert float(line["mrr@3 p_holm"]) == bpr["tests"]["mrr@3"]["p_holm"]
    assert float(line["mrr@3 sd"]) == bpr["deviations"]["mrr@3"]
    markdown = (folder / "table.md").read_text()
    assert re.search(r"\| BPR \| (\*\*)?0\.\d+ ± 0\.\d+", markdown) and "Against Pop, user by user" in markdown
    assert "A row with ± is the mean of 2 runs with the seeds 3 and 1" in markdown and "repeat the rows" not in markdown
    assert "- masking: of metrics with -masked after their names the whole history" in markdown
    assert "mrr@3 by how many interactions" in markdown and "mrr@3-masked by how many interactions" in markdown


def test_more_seeds_are_added_and_finished_runs_stay(table, started, tmp_path, capsys):
    folder, done = table
    shutil.copytree(folder, tmp_path / "t")
    more = compare([], config_dict={"resume": True, "seeds": [3, 1, 4]}, run_dir=tmp_path / "t")
    assert started == ["BPR/seed-4", "SASRec/seed-4"]
    assert [run["test_result"] for run in more["rows"][0]["runs"]][:2] == [
        run["test_result"] for run in done["rows"][0]["runs"]
    ]
    assert "Against Pop, user by user" in capsys.readouterr().out
    # a key of one row, and its runs alone go on
    started.clear()
    compare([], config_dict={"resume": True, "BPR.epochs": 31}, run_dir=tmp_path / "t")
    assert started == ["BPR/seed-3", "BPR/seed-1", "BPR/seed-4"]


def test_a_finished_training_keeps_the_keys_that_made_it(table, started, tmp_path):
    folder, _ = table
    shutil.copytree(folder, tmp_path / "t")
    files = {path: path.read_bytes() for path in (tmp_path / "t").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="learning_rate: the finished run of BPR was trained with another value"):
        compare([], config_dict={"resume": True, "BPR.learning_rate": 0.5}, run_dir=tmp_path / "t")
    assert files == {path: path.read_bytes() for path in (tmp_path / "t").rglob("*") if path.is_file()}
    # with the value that it had, also where the table has forgotten it meanwhile
    compare(["SASRec", "Pop"], config_dict={"resume": True}, run_dir=tmp_path / "t")
    compare(["BPR", "Pop"], config_dict={"resume": True, "BPR.learning_rate": 0.01}, run_dir=tmp_path / "t")
    assert json.loads((tmp_path / "t" / "table.json").read_text())["rows"][0]["model"] == "BPR"


def test_rows_that_read_a_row_which_goes_on_are_made_again(keys, tmp_path, started):
    given = {**keys, "compare_to": None, "SASRec.epochs": 1, "Blend.of": ["row:SASRec", "row:EASE"], "blend_step": 0.5}
    compare(["SASRec", "EASE", "Blend"], config_dict=given, run_dir=tmp_path / "t")
    started.clear()
    more = {"SASRec.epochs": 30, "resume": True}
    again = compare([], config_dict=more, run_dir=tmp_path / "t")
    assert started == ["t/SASRec", "t/Blend"] and not again["failed"]
    whole = compare(["SASRec", "EASE", "Blend"], config_dict={**given, "SASRec.epochs": 30}, run_dir=tmp_path / "whole")
    assert [row["test_result"] for row in again["rows"]] == [row["test_result"] for row in whole["rows"]]


def test_other_lists_of_a_table_are_evaluated_and_nothing_is_trained(keys, tmp_path, started):
    """Of a row that reads another one, too; a limit that was written out is no other value."""
    given = {**keys, "compare_to": None, "SASRecCE@two.item_init": "row:SASRecCE"}
    before = compare(["SASRecCE", "SASRecCE@two"], config_dict=given, run_dir=tmp_path / "t")
    more = {"resume": True, "topk": [1, 3], "SASRecCE.epochs": 30, "metric_decimal_place": 6}
    after = compare([], config_dict=more, run_dir=tmp_path / "t")
    for one, other in zip(before["rows"], after["rows"], strict=True):
        assert other["test_result"]["mrr@3"] == pytest.approx(one["test_result"]["mrr@3"], abs=1e-4)
        assert "mrr@1" in other["test_result"] and other["costs"]["steps"] == one["costs"]["steps"]


def test_a_row_that_a_limit_ended_keeps_its_validation(keys, tmp_path, started):
    given = {**keys, "compare_to": None, "epochs": 1}
    compare(["SASRec", "BPR"], config_dict=given, run_dir=tmp_path / "t")
    with pytest.raises(ConfigError, match="mask_history: the finished run of SASRec was trained with another value"):
        compare([], config_dict={"resume": True, "mask_history": True}, run_dir=tmp_path / "t")
    assert len(list((tmp_path / "t").rglob("costs.json"))) == 2


def test_a_row_that_a_limit_ended_keeps_its_keys_unless_the_limit_is_another(keys, tmp_path, started):
    given = {**keys, "compare_to": None, "epochs": 1}
    compare(["SASRec", "Pop"], config_dict=given, run_dir=tmp_path / "t")
    files = {path: path.read_bytes() for path in (tmp_path / "t").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="learning_rate: the finished run of SASRec was trained with another value"):
        compare([], config_dict={"resume": True, "SASRec.learning_rate": 0.5}, run_dir=tmp_path / "t")
    assert files == {path: path.read_bytes() for path in (tmp_path / "t").rglob("*") if path.is_file()}
    more = {"resume": True, "SASRec.learning_rate": 0.5, "SASRec.epochs": 2}
    assert not compare([], config_dict=more, run_dir=tmp_path / "t")["failed"]


def test_a_training_that_read_a_row_does_not_stay_when_that_goes_on(keys, tmp_path, started):
    given = {**keys, "compare_to": None, "SASRecCE.epochs": 1, "SASRecCE@two.item_init": "row:SASRecCE"}
    given["SASRecCE@two.epochs"] = 9
    compare(["SASRecCE", "SASRecCE@two"], config_dict=given, run_dir=tmp_path / "t")
    with pytest.raises(ConfigError, match="SASRecCE@two: its run is finished and read row:SASRecCE, which would be "):
        compare([], config_dict={"resume": True, "SASRecCE.epochs": 30}, run_dir=tmp_path / "t")


def test_a_table_is_written_where_a_run_cannot_be_read_any_more(table, started, tmp_path):
    folder, done = table
    shutil.copytree(folder, tmp_path / "t")
    for path in (tmp_path / "t").rglob("best/*"):
        path.unlink()
    (tmp_path / "t" / "SASRec" / "seed-3" / "ranks-test.npz").write_bytes(b"damaged")
    again = compare([], config_dict={"resume": True, "show_recommendations": 3}, run_dir=tmp_path / "t")
    assert started == []
    assert [row["test_result"] for row in again["rows"]] == [row["test_result"] for row in done["rows"]]
    text = (tmp_path / "t" / "table.md").read_text()
    for line in ("Recommendations are not shown: ", "- not tested: ", "ranks-test.npz is damaged"):
        assert line in text


def test_a_table_that_was_killed_goes_on_with_the_same_numbers(table, keys, tmp_path, in_this_process, monkeypatch):
    from recbole_hllm.runs import run as experiment

    _, done = table
    keep, results = experiment.write_results, []

    def killed(*arguments):
        results.append(arguments)
        if len(results) == 3:
            raise KeyboardInterrupt
        keep(*arguments)

    started, folder = in_this_process(monkeypatch), tmp_path / "t"
    here = subprocess.run

    def stopped(command, env, **kept):
        answer = here(command, env, **kept)
        if answer.returncode == 130:  # Ctrl-C reaches both processes
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(subprocess, "run", stopped)
    monkeypatch.setattr(experiment, "write_results", killed)
    given = {**keys, "seeds": [3, 1], "mask_history": "both"}
    with pytest.raises(KeyboardInterrupt):
        compare(["BPR", "Pop", "SASRec"], config_dict=given, run_dir=folder)
    assert started == ["BPR/seed-3", "t/Pop", "SASRec/seed-3"] and not list(folder.rglob("*.lock"))
    started.clear()
    again = compare(["BPR", "Pop", "SASRec"], config_dict={**given, "resume": True}, run_dir=folder)
    assert started == ["SASRec/seed-3", "BPR/seed-1", "SASRec/seed-1"]
    for key in ("test_result", "deviations", "tests"):
        assert [row.get(key) for row in again["rows"]] == [row.get(key) for row in done["rows"]]


def test_drawn_candidates_are_those_of_the_first_seed(keys, tmp_path, started):
    given = {**keys, "seeds": [1, 2], "eval_args": {"mode": "uni3"}, "eval_users": 9, "epochs": 1}
    done = compare(["BPR", "Pop"], config_dict=given, run_dir=tmp_path / "t")
    assert not done["failed"] and done["rows"][0]["tests"]["mrr@3"]["verdict"] == "not converged"
    prints = {json.dumps(json.loads(path.read_text())["fingerprint"]) for path in tmp_path.rglob("protocol.json")}
    assert len(prints) == 1


def test_some_rows_are_repeated(keys, tmp_path, started):
    given = {**keys, "seeds": [3, 1], "seeds_for": ["SASRec"], "epochs": 1}
    done = compare(["BPR", "Pop", "SASRec"], config_dict=given, run_dir=tmp_path / "t")
    assert started == ["BPR/seed-3", "t/Pop", "SASRec/seed-3", "SASRec/seed-1"] and not done["failed"]
    bpr, _, sasrec = done["rows"]
    assert bpr["seeds"] == [3] and sasrec["seeds"] == [3, 1]
    assert bpr["deviations"]["mrr@3"] is None and sasrec["deviations"]["mrr@3"] is not None
    assert done["header"]["seed"] == "3, 1, one run with each; others: 3"
    markdown = (tmp_path / "t" / "table.md").read_text()
    assert "their means over these runs. BPR has one run, with the first of them." in markdown
    started.clear()  # the same table, and then the other row's runs, too
    compare([], config_dict={"resume": True}, run_dir=tmp_path / "t")
    assert started == []
    compare([], config_dict={"resume": True, "seeds_for": None}, run_dir=tmp_path / "t")
    assert started == ["BPR/seed-1"]


def test_rows_to_repeat_without_seeds_are_told(keys, tmp_path, caplog):
    for given, said in (({"seeds": [1, 2]}, []), ({}, ["seeds_for without effect: the table has no seeds"])):
        caplog.clear()
        prepare("BPR,Pop", None, {**keys, **given, "seeds_for": ["BPR"]}, tmp_path / "t")
        assert [line for line in caplog.messages if "seeds_for" in line] == said


def test_a_repeated_row_reads_repeated_rows(settings_of, tmp_path):
    given = {**settings_of("SASRec"), "seeds": [1, 2], "sanity_rows": ["Pop"], "Blend.of": ["row:SASRec", "row:Pop"]}
    with pytest.raises(ConfigError, match="seeds_for: Blend reads row:SASRec, which has one run; name SASRec, too"):
        prepare("SASRec,Pop,Blend", None, {**given, "seeds_for": ["Blend"]}, tmp_path / "t")
    table = prepare("SASRec,Pop,Blend", None, {**given, "seeds_for": ["Blend", "SASRec"]}, tmp_path / "t")
    assert [len(table.seeds_of(row)) for row in table.models] == [2, 1, 2] and len(jobs_of(table)) == 5


def test_runs_are_made_after_those_that_they_read(settings_of, tmp_path):
    shared = {key: value for key, value in settings_of("E4SRec").items() if settings_of("SASRec").get(key) == value}
    own = {key: value for key, value in settings_of("E4SRec").items() if key not in shared}
    given = {**shared, "seeds": [1, 2], "sanity_rows": ["Pop"], "SASRec.hidden_size": 8, "SASRec.inner_size": 16,
             "SASRec.n_layers": 1, **{f"E4SRec.{key}": value for key, value in own.items() if key != "item_table_keys"},
             "E4SRec.item_table": "row:SASRec"}  # fmt: skip
    table = prepare("SASRec,E4SRec", None, given, tmp_path / "t")
    jobs = {f"{job.folder.parent.name}/{job.folder.name}": job for job in jobs_of(table)}
    assert list(jobs) == ["SASRec/seed-1", "E4SRec/seed-1", "t/Pop", "SASRec/seed-2", "E4SRec/seed-2"]
    for seed in ("seed-1", "seed-2"):
        assert jobs[f"E4SRec/{seed}"].after == {tmp_path / "t" / "SASRec" / seed}
    assert jobs["E4SRec/seed-2"].words == ("--seed=2", "--seeds=None") and not jobs["SASRec/seed-2"].after
    assert folder_of(table, "Pop", 2) == tmp_path / "t" / "Pop"
    made = {job.folder: {"model": job.row, "error": job.folder.name} for job in jobs.values()}
    errors = [row["error"] for row in rows_of(table, made)]
    both = "seed 1: seed-1; seed 2: seed-2"
    assert errors == [both, both, "Pop"]


def test_a_row_with_seeds_is_named_for_the_run_of_the_same_seed(tmp_path):
    for run in ("SASRec/seed-1", "SASRec/seed-2", "Pop"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "costs.json").write_text("{}")
    assert _row("item_table", "row:SASRec", tmp_path / "E4SRec" / "seed-2") == tmp_path / "SASRec" / "seed-2"
    assert _row("item_table", "row:Pop", tmp_path / "E4SRec" / "seed-2") == tmp_path / "Pop"
    assert _row("item_table", "row:Pop", tmp_path / "E4SRec") == tmp_path / "Pop"
    with pytest.raises(ConfigError, match="SASRec is not a finished run"):
        _row("item_table", "row:SASRec", tmp_path / "E4SRec" / "seed-3")


@pytest.mark.parametrize(
    "given, said",
    [
        ({"seeds": [1, 1]}, "seeds: .* is not a list of different numbers"),
        ({"seeds": [1, 2], "BPR.seed": 4}, "BPR.seed: seeds gives every row its seeds"),
        ({"BPR.seeds": [1, 2]}, "'BPR.seeds' is of a table, whose rows have a run with each of them"),
        ({"seeds": [1, 2], "seeds_for": ["SASRec"]}, "seeds_for: 'SASRec' is not a row of this table"),
        ({"seeds": [1, 2], "seeds_for": 3}, "seeds_for: 3 is not a list"),
        ({"compare_to": "SASRec"}, "compare_to: 'SASRec' is not a row of this table"),
        ({"compare_test": "sign"}, "compare_test: 'sign' is not one of t-test, wilcoxon"),
        ({"BPR.compare_to": "Pop"}, "'compare_to' is shared by all rows"),
    ],
)
def test_wrong_keys(keys, tmp_path, started, given, said):
    with pytest.raises(ConfigError, match=said):
        compare(["BPR", "Pop"], config_dict={**keys, **given}, run_dir=tmp_path / "t")
    assert started == []


def test_a_table_keeps_its_kind_and_a_search_has_one_seed(table, keys, tmp_path, started):
    folder, _ = table
    with pytest.raises(ConfigError, match="seeds: .* is a table with seeds; make another one"):
        compare([], config_dict={"resume": True, "seeds": None}, run_dir=folder)
    with pytest.raises(ConfigError, match="seeds: a search has one seed; .*best.yaml --seeds="):
        search(["BPR"], config_dict={**keys, "compare_to": None, "seeds": [1], "trials": 1,
                                     "BPR.search": {"learning_rate": [0.1]}}, run_dir=tmp_path / "s")  # fmt: skip
    assert started == []


def test_labelled_rows_are_not_tested(settings_of, tmp_path, started):
    given = {**settings_of("LEARNScorer"), "compare_to": "LEARNScorer"}
    with pytest.raises(ConfigError, match="compare_to: rows are compared user by user"):
        compare(["LEARNScorer", "LEARNScorer@b"], config_dict=given, run_dir=tmp_path / "t")


@pytest.mark.slow
def test_processes_share_a_table_and_one_is_killed(table, keys, tmp_path):
    """The first is killed inside a run, which ends by itself or with it; two others make the rest together."""
    folder = tmp_path / "t"
    given = {**keys, "seeds": [3, 1], "mask_history": "both", "state": "info"}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(given))
    words = [sys.executable, "-m", "recbole_hllm.cli", "compare", f"--run_dir={folder}"]
    first = subprocess.Popen([*words, "--model=BPR,Pop,SASRec", f"--config_files={tmp_path / 'keys.yaml'}"])
    while not (folder / "BPR" / "seed-3" / "config.yaml").is_file():
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    others = [subprocess.Popen([*words, "--resume"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [other.communicate(timeout=300)[0] for other in others]
    assert [other.returncode for other in others] == [0, 0] and all("± 0." in text for text in printed)
    rows = json.loads((folder / "table.json").read_text())["rows"]
    for key in ("test_result", "deviations", "tests"):
        assert [row.get(key) for row in rows] == [row.get(key) for row in table[1]["rows"]]
    logs = list(folder.rglob("run.log"))
    assert len(logs) == 5 and not list(folder.rglob("*.lock"))
    for log in logs:  # the run whose table was killed has ended by itself
        assert log.read_text().count("all of it in") == 1
