"""Several models in processes of their own: one protocol, one table, and no row takes another one with it."""

import csv
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_hllm.errors import ConfigError
from recbole_hllm.runs.run import run
from recbole_hllm.tables.header import history_lengths
from recbole_hllm.tables.side_by_side import compare, prepare, run_alone

ASKED = ["Pop", "SASRec", "FDSA", "HLLM"]
MODELS = [*ASKED, "Markov", "TextKNN"]  # the sanity rows that were not asked for come last


@pytest.fixture(scope="module")
def keys_of(settings_of):
    """One set of keys for a table of these models: those of HLLM and of the small RecBole models, by prefix."""
    hllm, small = settings_of("HLLM"), settings_of("SASRec")
    shared = {key: value for key, value in hllm.items() if small.get(key) == value}
    prefixed = {f"HLLM.{key}": value for key, value in hllm.items() if key not in shared}
    sizes = {"FDSA.hidden_size": 4, "SASRec.hidden_size": 8, "SASRec.epochs": 1}
    return {**shared, **prefixed, **sizes, "precision": "fp32"}  # of TextKNN too, which else asks the CPU


def shared_of(keys_of):
    """Keys of a table of the models named and no others."""
    return {key: value for key, value in keys_of.items() if "." not in key} | {"sanity_rows": False}


@pytest.fixture(scope="module")
def table(keys_of, tmp_path_factory, in_this_process):
    """The folder of a table of ``ASKED``."""
    folder = tmp_path_factory.mktemp("tables") / "table"
    with pytest.MonkeyPatch.context() as monkeypatch:
        started = in_this_process(monkeypatch)
        done = compare(ASKED, config_dict={**keys_of, "eval_args": {"mode": "uni3"}}, run_dir=folder)
    assert started == [f"table/{model}" for model in MODELS] and not done["failed"]
    return folder


def test_all_rows_rank_the_same_candidates_for_the_same_targets(table):
    protocols = [json.loads((table / model / "protocol.json").read_text()) for model in MODELS]
    for key in ("fingerprint", "statistics", "eval_args", "mask_history", "seed"):
        assert all(protocol[key] == protocols[0][key] for protocol in protocols)
    assert protocols[0]["fingerprint"]["items"] == 12 and protocols[0]["fingerprint"]["test_targets"] == 14
    assert protocols[0]["fingerprint"]["test_candidates"] != "all"
    for phase in ("valid", "test"):
        arrays = [dict(np.load(table / model / f"ranks-{phase}.npz")) for model in MODELS]
        for other in arrays:
            assert np.array_equal(other["user"], arrays[0]["user"])
            assert np.array_equal(other["target"], arrays[0]["target"])
            assert other["rank"].max() <= 4


def test_keys_of_one_model_reach_it_alone(table):
    configs = {model: yaml.safe_load((table / model / "config.yaml").read_text()) for model in MODELS}
    assert [configs[model]["hidden_size"] for model in ("SASRec", "FDSA")] == [8, 4]
    assert [configs[model]["epochs"] for model in ASKED] == [2, 1, 2, 2]
    assert configs["FDSA"]["selected_features"] == ["class"]
    assert configs["HLLM"]["num_negatives"] == 8 and "num_negatives" not in configs["SASRec"]
    epochs = [json.loads((table / model / "costs.json").read_text())["epochs"] for model in MODELS]
    assert epochs == [1, 1, 2, 2, 1, 1]


def test_rows_say_that_steps_ended_them(keys_of, tmp_path, in_this_process, monkeypatch):
    in_this_process(monkeypatch)
    keys = {**shared_of(keys_of), "train_batch_size": 8, "max_steps": 3, "SASRec.max_steps": 2}
    table = compare(["BPR", "SASRec", "Pop"], config_dict=keys, run_dir=tmp_path / "table")
    costs = {row["model"]: row["costs"] for row in table["rows"]}
    reasons = {model: cost["stop_reason"] for model, cost in costs.items()}
    assert reasons == {"BPR": "limit of 3 steps", "SASRec": "limit of 2 steps", "Pop": "counted once"}
    assert {model: cost["converged"] for model, cost in costs.items()} == {"BPR": False, "SASRec": False, "Pop": True}
    assert "limit of 3 steps" in (tmp_path / "table" / "table.md").read_text()


def test_names_in_one_string_and_one_file_need_no_list(keys_of, tmp_path):
    """Everything but the number of trials, which is no table's, is read and right."""
    (file := tmp_path / "keys.yaml").write_text(yaml.safe_dump({**shared_of(keys_of), "trials": 2}))
    for one in (file, str(file)):
        with pytest.raises(ConfigError, match="trials: this is one run of each model"):
            compare("Pop, SASRec", None, one, run_dir=tmp_path / "t")
    with pytest.raises(ConfigError, match="model: Pop,Pop names a model twice"):
        compare("Pop,Pop", None, file, run_dir=tmp_path / "t")


@pytest.mark.parametrize(
    "code, log, said",
    [
        (2, "12:00:00 E text_keys: no column x\n", "text_keys: no column x"),
        (1, "12:00:00 E ValueError: of RecBole\nTraceback\n", "crashed (ValueError: of RecBole); its traceback is in "),
        (-9, "12:00:00 I epoch 1\n", "ended with exit code -9; see "),
        (1, None, "ended with exit code 1; see "),
    ],
)
def test_why_a_run_ended_is_said_in_one_line(tmp_path, monkeypatch, code, log, said):
    if log:
        (tmp_path / "run.log").write_text(log)
    monkeypatch.setattr(subprocess, "run", lambda command, env: subprocess.CompletedProcess(command, code))
    error = run_alone("SASRec", tmp_path / "keys.yaml", tmp_path, [])["error"]
    assert error == said + (str(tmp_path / "run.log") if said.endswith(" ") else "")


def test_variants_are_rows_with_keys_and_seeds_of_their_own(keys_of, tmp_path, started):
    keys = shared_of(keys_of) | {"SASRec.hidden_size": 8, "SASRec.epochs": 1, "SASRec@wide-2.hidden_size": 16}
    done = compare(["SASRec", "SASRec@wide-2"], config_dict={**keys, "SASRec@wide-2.seed": 7}, run_dir=tmp_path / "t")
    assert [row["model"] for row in done["rows"]] == ["SASRec", "SASRec@wide-2"] and not done["failed"]
    small, wide = (row["costs"]["parameters_total"] for row in done["rows"])
    assert wide > 1.5 * small
    assert done["header"]["seed"] == "SASRec 2020, SASRec@wide-2 7"
    assert "| SASRec@wide-2 |" in (tmp_path / "t" / "table.md").read_text()
    assert (tmp_path / "t" / "SASRec@wide-2" / "metrics.json").is_file()


def test_tables_hold_what_the_runs_left(table):
    content = json.loads((table / "table.json").read_text())
    with open(table / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    markdown = (table / "table.md").read_text()
    assert [row["model"] for row in content["rows"]] == [line["model"] for line in lines] == MODELS
    for row, line in zip(content["rows"], lines, strict=True):
        run_folder = table / row["model"]
        metrics = json.loads((run_folder / "metrics.json").read_text())
        assert row["test_result"] == metrics["test_result"]
        assert row["costs"] == json.loads((run_folder / "costs.json").read_text())
        for metric, value in metrics["test_result"].items():
            assert float(line[metric]) == value
        assert re.search(rf"^\| {row['model']} \|", markdown, re.MULTILINE)
    header = content["header"]
    assert {key: header[key] for key in ("dataset", "users", "items", "interactions", "seed")} == {
        "dataset": "toy", "users": 14, "items": 12, "interactions": 103, "seed": 2020,
    }  # fmt: skip
    assert (header["history_length"], header["candidates"]) == (5, "uni3, drawn once from the seed")
    assert header["precision"] == "fp32" and "- precision: fp32\n" in markdown


def test_segments_of_all_models_stand_below(table):
    content = json.loads((table / "table.json").read_text())
    markdown = (table / "table.md").read_text()
    for row in content["rows"]:
        assert row["segments"] == json.loads((table / row["model"] / "segments.json").read_text())
    assert "mrr@10 by how many interactions" in markdown
    assert f"| interactions in training | targets | {' | '.join(MODELS)} |" in markdown
    line = next(line for line in markdown.splitlines() if line.startswith("| user 1-35 | 14 |"))
    values = [float(cell.strip("* ")) for cell in line.split("|")[3:-1]]
    assert values == [pytest.approx(row["test_result"]["mrr@10"], abs=6e-5) for row in content["rows"]]


def test_textknn_reads_items_as_hllm_does(table):
    hllm, knn = (yaml.safe_load((table / model / "config.yaml").read_text()) for model in ("HLLM", "TextKNN"))
    for key in ("item_pretrain_dir", "item_llm_layers", "text_keys", "text_field", "MAX_TEXT_LENGTH"):
        assert knn[key] == hllm[key]


def test_the_memory_of_a_run_is_not_that_of_one_before(keys_of, tmp_path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux forgets a peak")
    held = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")  # by the tests so far
    np.ones(200_000_000)  # 1.6 GB, and gone
    run("Pop", config_dict=shared_of(keys_of), run_dir=tmp_path / "run")
    assert 100e6 < json.loads((tmp_path / "run" / "costs.json").read_text())["peak_memory_bytes"] < held + 0.8e9


def test_a_row_that_fails_is_shown_and_the_others_survive(keys_of, tmp_path, started, capsys):
    from recbole_hllm import cli

    keys = {key: value for key, value in keys_of.items() if not key.startswith("HLLM")}
    keys |= {"FDSA.hidden_size": 4, "sanity_rows": False}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({**keys, "SASRec.n_heads": 3}))
    words = ["--model=SASRec,Pop,FDSA", f"--config_files={tmp_path / 'keys.yaml'}", f"--run_dir={tmp_path / 'table'}"]
    assert cli.main(words) == 1
    assert started == ["table/SASRec", "table/Pop", "table/FDSA"]
    printed = capsys.readouterr().out
    assert "SASRec failed: SASRec cannot be built with these keys: The hidden size (8) is not a multiple" in printed
    content = {row["model"]: row for row in json.loads((tmp_path / "table" / "table.json").read_text())["rows"]}
    assert "not a multiple" in content["SASRec"]["error"]
    assert content["Pop"]["test_result"] and content["FDSA"]["test_result"]
    # corrected, the table is completed; what was finished stays as it is
    before = (tmp_path / "table" / "Pop" / "ranks-test.npz").read_bytes()
    assert cli.main([words[2], "--resume", "--SASRec.n_heads=2"]) == 0
    assert "failed" not in capsys.readouterr().out
    assert (tmp_path / "table" / "Pop" / "ranks-test.npz").read_bytes() == before
    config = yaml.safe_load((tmp_path / "table" / "SASRec" / "config.yaml").read_text())
    assert (config["n_heads"], config["epochs"], config["hidden_size"]) == (2, 1, 8)


def test_only_a_table_goes_on_and_each_row_from_where_it_was(keys_of, tmp_path, started, capsys):
    keys, folder = shared_of(keys_of), tmp_path / "t"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no table in .*t: no keys.yaml"):
        compare(["Pop", "BPR"], config_dict={**keys, "resume": True}, run_dir=folder)
    assert started == [] and [path.name for path in folder.iterdir()] == ["notes.txt"]
    compare(["Pop", "SASRec"], config_dict={**keys, "trust_remote_code": False}, run_dir=folder)
    with pytest.raises(ConfigError, match="is a table of toy, not of other"):
        compare(["Pop", "SASRec"], "other", config_dict={"resume": True}, run_dir=folder)
    # of three rows one is finished, one was never begun, and one has a folder of the user's in its place
    (folder / "SASRec").rename(tmp_path / "away")
    (folder / "BPR" / "best").mkdir(parents=True)
    (folder / "BPR" / "best" / "mine").write_text("mine")
    done = compare(["Pop", "SASRec", "BPR"], config_dict={"resume": True}, run_dir=folder)
    assert done["failed"] == ["BPR"] and (folder / "BPR" / "best" / "mine").read_text() == "mine"
    assert [row["model"] for row in done["rows"] if "test_result" in row] == ["Pop", "SASRec"]
    assert not {"resume", "trust_remote_code"} & yaml.safe_load((folder / "keys.yaml").read_text()).keys()


def test_code_of_a_language_model_is_allowed_by_the_call_alone(keys_of, tmp_path, monkeypatch):
    started = []

    def not_at_all(command, env, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", not_at_all)
    keys = shared_of(keys_of)
    compare(["Pop", "BPR"], config_dict={**keys, "trust_remote_code": True}, run_dir=tmp_path / "t")
    assert all("--trust_remote_code=True" in command for command in started)
    compare(["Pop", "BPR"], config_dict={**keys, "BPR.trust_remote_code": True}, run_dir=tmp_path / "one")
    assert ["--BPR.trust_remote_code=True" in command for command in started[2:]] == [False, True]
    with open(tmp_path / "t" / "keys.yaml", "a") as file:
        file.write("trust_remote_code: true\n")
    started.clear()
    compare(["Pop", "BPR"], config_dict={"resume": True}, run_dir=tmp_path / "t")
    assert len(started) == 2 and not any("trust_remote_code" in word for command in started for word in command)
    assert "trust_remote_code" not in (tmp_path / "t" / "keys.yaml").read_text()


def test_history_lengths_that_differ_are_told_row_by_row(keys_of, tmp_path, started, capsys):
    keys = shared_of(keys_of)
    done = compare(["SASRec", "BPR"], config_dict={**keys, "SASRec.MAX_ITEM_LIST_LENGTH": 3}, run_dir=tmp_path / "t")
    assert done["header"]["history_length"] == "SASRec 3, BPR 5" and done["failed"] == []


@pytest.mark.parametrize(
    "pairs, told",
    [
        ({"HLLM": (20, 20), "SASRec": (20, 20), "Pop": (None, None)}, 20),
        ({"Pop": (None, None)}, None),
        ({"HLLM": (20, 40), "SASRec": (20, 20)}, "HLLM 20 (40 in evaluation), SASRec 20"),
        ({"HLLM": (20, 40), "Pop": (None, None)}, "HLLM 20 (40 in evaluation)"),
    ],
)
def test_history_lengths_of_training_and_evaluation(pairs, told):
    finished = [
        {"model": model, "protocol": {"history_length": trained, "history_length_test": tested}}
        for model, (trained, tested) in pairs.items()
    ]
    assert history_lengths(finished) == told


def test_a_table_of_validation_only(keys_of, tmp_path, started, capsys):
    keys = shared_of(keys_of)
    done = compare(
        ["Pop", "BPR"], config_dict={**keys, "eval_args": {"split": {"LS": "valid_only"}}}, run_dir=tmp_path / "t"
    )
    assert done["failed"] == [] and done["header"]["split"].startswith("{'LS': 'valid_only'}")


@pytest.mark.parametrize(
    "own, weights",
    [
        ({}, "best validation weights"),
        ({"eval_step": 0}, "weights of the last epoch (no validation)"),
        ({"eval_args": {"split": {"LS": "test_only"}}}, "weights of the last epoch (no validation)"),
        (
            {"BPR.eval_step": 0},
            "Pop best validation weights, BPR weights of the last epoch (no validation)",
        ),
    ],
    ids=str,
)
def test_which_weights_are_tested(keys_of, tmp_path, monkeypatch, in_this_process, own, weights):
    in_this_process(monkeypatch)
    done = compare(["Pop", "BPR"], config_dict={**shared_of(keys_of), **own}, run_dir=tmp_path / "t")
    assert done["failed"] == [] and done["header"]["metrics"] == f"RecBole's Evaluator, {weights}"
    assert f"- metrics: RecBole's Evaluator, {weights}\n" in (tmp_path / "t" / "table.md").read_text()


def test_rows_under_other_protocols_are_not_compared(keys_of, tmp_path, monkeypatch, started, capsys):
    from recbole_hllm.tables import side_by_side

    keys = shared_of(keys_of)
    run_alone = side_by_side.run_alone

    def other_protocol(model, *arguments):
        row = run_alone(model, *arguments)
        row["protocol"]["fingerprint"]["test_pairs"] = model
        return row

    monkeypatch.setattr(side_by_side, "run_alone", other_protocol)
    done = compare(["Pop", "BPR"], config_dict=keys, run_dir=tmp_path / "t")
    assert done["failed"] == ["BPR"]
    assert done["rows"][0]["test_result"] and not {"test_result", "best_valid_result"} & done["rows"][1].keys()
    assert "BPR failed: not comparable with Pop: test_pairs differ" in capsys.readouterr().out


def test_some_rows_of_a_file_alone(keys_of, tmp_path, started):
    """The keys of its other rows are for them; a model that it does not list is still a mistake."""
    of_rows = {"SASRec.n_layers": 1, "SASRec@wide.hidden_size": 8, "GRU4Rec.dropout_prob": 0.1}
    given = {**shared_of(keys_of), "model": ["Pop", "BPR", "SASRec@wide", "SASRec", "GRU4Rec"], **of_rows}
    table = prepare("Pop,SASRec@wide", None, given, tmp_path / "table")
    assert table.models[:2] == ["Pop", "SASRec@wide"]
    assert {key: table.keys[key] for key in of_rows if key in table.keys} == {
        "SASRec.n_layers": 1,  # SASRec@wide is a SASRec
        "SASRec@wide.hidden_size": 8,
    }
    with pytest.raises(ConfigError, match="'BERT4Rec' is not a model of this run"):
        prepare("Pop,BPR", None, {**given, "BERT4Rec.hidden_size": 4}, tmp_path / "table")
    with pytest.raises(ConfigError, match="GRU4Rec.dropout_prob: the row GRU4Rec is left out of this run"):
        prepare("Pop,BPR", None, given, tmp_path / "table", words=["GRU4Rec.dropout_prob"])


def test_ratios_of_a_file_to_a_row_that_is_left_out(keys_of, tmp_path, started):
    given = {**shared_of(keys_of), "model": ["Pop", "BPR", "SASRec"], "ratios_to": "SASRec"}
    assert "ratios_to" not in prepare("Pop,BPR", None, given, tmp_path / "table").keys
    assert prepare("Pop,SASRec", None, given, tmp_path / "table").keys["ratios_to"] == "SASRec"
    with pytest.raises(ConfigError, match="ratios_to: 'SASRec' is not a row of this table"):
        prepare("Pop,BPR", None, given, tmp_path / "table", words=["ratios_to"])


@pytest.mark.parametrize(
    "models, keys, said",
    [
        ("Pop,SASRec", {"GRU4Rec.hidden_size": 4}, "'GRU4Rec' is not a model of this run"),
        ("Pop,SASRec", {"SASRek.hidden_size": 4}, "'SASRek' is not a model; did you mean 'SASRec'"),
        ("Pop,SASRec", {"SASRec.topk": [5]}, "'topk' is shared by all rows"),
        ("Pop,SASRec", {"SASRec.eval_args": {"mode": "uni100"}}, "'eval_args' is shared by all rows"),
        ("Pop,SASRec", {"SASRec.eval_targets": "together"}, "'eval_targets' is shared by all rows"),
        ("Pop,SASRec", {"Pop.mask_history": True}, "'mask_history' is shared by all rows"),
        ("Pop,SASRec@wide", {"SASRec@wider.n_layers": 1}, "'SASRec@wider' is not a model of this run"),
        ("Pop,SASRec", {"Pop.valid_metric": "NDCG@10"}, "'valid_metric' is shared by all rows"),
        ("Pop,SASRec", {"SASRec.dataset": "other"}, "'dataset' is shared by all rows"),
        ("Pop,SASRec", {"SASRec.model": "GRU4Rec"}, "'model' is shared by all rows"),
        ("Pop,SASRec", {"SASRec.segments_user": [3]}, "'segments_user' is shared by all rows"),
        ("Pop,SASRec", {"segments_item": ["rare"]}, "segments_item: 'rare' is not a number"),
        ("Pop,SASRec", {"sanity_rows": "Markow"}, "sanity_rows: 'Markow' is not one of Pop, Markov, TextKNN; did you"),
        ("Pop,SASRec", {"TextKNN.knn_history": 1}, "'TextKNN' is not a model of this run"),
        ("Pop,SASRec", {"SASRec.resume": True}, "'resume' is shared by all rows"),
        ("Pop,HLLM", {"MAX_ITEM_LIST_LENGTH_TEST": 9}, "is evaluated with MAX_ITEM"),
        ("Pop,SASRec", {"SASRec.hidden_sise": 4}, "did you mean 'hidden_size'"),
        ("Pop,SASRek", {}, "did you mean 'SASRec'"),
        ("Pop,SASRec", {"SASRec.precision": "fp8"}, "precision: 'fp8'"),
        ("Pop,LEARN", {"LEARN.sampling": "even"}, "sampling: 'even' is not one of uniform, recent, last"),
        ("Pop,LEARN@c", {"LEARN@c.item_tower": "d"}, "LEARN@c: item_tower: 'd' is not one of causal, alone, content"),
        ("Pop,Pop", {}, "names a model twice"),
        ("Pop,SASRec", {"evaluate_only": True}, "evaluate_only: one run at a time"),
    ],
)
def test_wrong_keys_are_refused_before_anything_runs(keys_of, tmp_path, started, models, keys, said):
    shared = shared_of(keys_of)
    with pytest.raises(ConfigError, match=re.escape(said)):
        compare(models.split(","), config_dict={**shared, **keys}, run_dir=tmp_path / "table")
    assert started == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["table.md", "keys.yaml", "SASRec"])
def test_a_folder_that_holds_a_table_is_not_touched(keys_of, tmp_path, started, there):
    (tmp_path / there).write_text("mine")
    keys = shared_of(keys_of)
    with pytest.raises(ConfigError, match=f"already holds a run \\({there}\\)"):
        compare(["Pop", "SASRec"], config_dict=keys, run_dir=tmp_path)
    assert started == [] and (tmp_path / there).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
