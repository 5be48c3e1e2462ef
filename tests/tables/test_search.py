"""Equal trials for every model: picked by validation, told in a table, and refused before anything runs."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from recbole_hllm import Config, run
from recbole_hllm.errors import ConfigError
from recbole_hllm.runs.folder import saved_keys
from recbole_hllm.tables import search_report
from recbole_hllm.tables.search import draw, search
from recbole_hllm.tables.side_by_side import compare

ROOT = Path(__file__).parents[2]
# Of the keys in conftest.py.
SASREC = {"learning_rate": [0.003, 0.01, 0.03], "hidden_dropout_prob": [0.1, 0.3]}
BPR = {"learning_rate": [0.01, 0.001, 0.0001], "embedding_size": [4, 8]}


def json_of(folder, name):
    return json.loads((folder / name).read_text())


# ---- trials and their table ----


def test_every_model_has_as_many_trials_each_with_its_own_values(searched):
    done, folder, started = searched
    assert started == [f"{model}/trial-{number}" for model in ("SASRec", "BPR") for number in (1, 2, 3)] + [
        "my search/Markov"
    ]
    for model, space in (("SASRec", SASREC), ("BPR", BPR)):
        drawn = [trial["keys"] for trial in done["trials"] if trial["model"] == model]
        assert drawn == draw(space, 3, 2020)
        for number, keys in enumerate(drawn, 1):
            config = yaml.safe_load((folder / model / f"trial-{number}" / "config.yaml").read_text())
            assert {key: config[key] for key in keys} == keys
            assert not config.keys() & {"search", "trials"} and config["epochs"] == 1


def test_the_best_on_validation_is_the_row_whatever_the_test_says(searched):
    done, folder, _ = searched
    assert [row["model"] for row in done["rows"]] == ["SASRec", "BPR", "Markov"] and done["failed"] == []
    for row in done["rows"][:2]:
        runs = [json_of(folder, f"{row['model']}/trial-{number}/metrics.json") for number in (1, 2, 3)]
        scores = [run["best_valid_score"] for run in runs]
        best = scores.index(max(scores))
        assert row["trial"] == best + 1 and row["test_result"] == runs[best]["test_result"]
        picked = [trial["picked"] for trial in done["trials"] if trial["model"] == row["model"]]
        assert picked == [place == best for place in range(3)]


@pytest.mark.parametrize("bigger, best", [(True, 2), (False, 3)])
def test_picking(keys, tmp_path, monkeypatch, bigger, best, without):
    """By validation alone, in the direction of its metric; the first of equal ones; no failed one."""
    from recbole_hllm.tables import search as module

    scores = iter([0.2, 0.5, 0.0, 0.5, 0.0, None])
    tests = iter([0.9, 0.1, 0.1, 0.2, 0.2, 0.9])

    def run_alone(model, *arguments):
        if model == "Markov":
            return {"model": model, "error": "not here"}
        result = {"best_valid_score": next(scores), "best_valid_result": {}, "test_result": {"mrr@10": next(tests)}}
        return {"model": model, **result, "costs": {}, "protocol": protocol}

    asked = {"mode": {"test": "full"}, "split": {}, "order": "TO"}
    protocol = {"fingerprint": {}, "statistics": {}, "eval_args": asked}
    protocol |= {"mask_history": False, "seed": 1, "precision": "fp32", "history_length": 5, "history_length_test": 5}
    monkeypatch.setattr(module, "run_alone", run_alone)
    if not bigger:
        monkeypatch.setattr(Config, "__getitem__", lower_is_better(Config.__getitem__))
    done = search("SASRec", config_dict={**without(keys, "BPR"), "trials": 6}, run_dir=tmp_path / "s")
    assert done["rows"][0]["trial"] == best and done["rows"][0]["best_valid_score"] == (0.5 if bigger else 0.0)
    assert "no validation score" in done["trials"][5]["error"]


def lower_is_better(get):
    return lambda self, key: False if key == "valid_metric_bigger" else get(self, key)


def test_what_is_written(searched):
    done, folder, _ = searched
    written = {f"{name}.{suffix}" for name in ("search", "table") for suffix in ("md", "csv", "json")}
    written |= {"best.yaml", "keys.yaml", "SASRec", "BPR", "Markov"}
    assert {path.name for path in folder.iterdir()} == written
    assert {path.name for path in (folder / "BPR").iterdir()} == {
        f"trial-{number}{suffix}" for number in (1, 2, 3) for suffix in ("", ".yaml")
    }
    content = json_of(folder, "search.json")
    assert content["trials"] == done["trials"] and content["header"] == {
        "dataset": "toy", "trials": 3, "valid_metric": "MRR@10", "seed": 2020, "spaces": {"SASRec": SASREC, "BPR": BPR},
    }  # fmt: skip
    for trial in content["trials"]:
        run_folder = folder / trial["model"] / f"trial-{trial['trial']}"
        metrics, costs = json_of(run_folder, "metrics.json"), json_of(run_folder, "costs.json")
        assert trial["valid_score"] == metrics["best_valid_score"] == trial["valid_result"]["mrr@10"]
        for cost in ("epochs", "best_epoch", "converged", "stop_reason", "training_seconds"):
            assert trial[cost] == costs[cost]
    lines = list(csv.DictReader(io.StringIO((folder / "search.csv").read_text())))
    assert len(lines) == 6
    for line, trial in zip(lines, done["trials"], strict=True):
        searched_keys = {"learning_rate", "hidden_dropout_prob", "embedding_size"}
        assert {key: float(line[key]) for key in searched_keys if line[key]} == trial["keys"]
        assert float(line["valid_score"]) == trial["valid_score"] and line["picked"] == str(trial["picked"])
    # nothing of the test, by which somebody might choose
    texts = "".join((folder / f"search.{suffix}").read_text() for suffix in ("md", "csv", "json"))
    assert "test" not in texts
    assert "search: best of 3 trials by MRR@10 (Markov: one run)" in (folder / "table.md").read_text()
    assert json_of(folder, "table.json")["rows"][0]["keys"] == done["rows"][0]["keys"]


def test_best_yaml_makes_the_chosen_runs_again(searched, keys, tmp_path, started):
    done, folder, _ = searched
    rows = {row["model"]: row for row in done["rows"]}
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best == {
        f"{model}.{key}": value for model in ("SASRec", "BPR") for key, value in rows[model]["keys"].items()
    }
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({**keys, "trials": None}))
    again = compare(["SASRec", "BPR"], None, [tmp_path / "keys.yaml", folder / "best.yaml"], run_dir=tmp_path / "again")
    for row in again["rows"]:
        assert row["test_result"] == rows[row["model"]]["test_result"]


def test_best_yaml_gives_a_variant_nothing_of_its_models_line(keys, tmp_path, started, without):
    """SASRec's chosen learning rate would be SASRec@own's too, which was searched with the default."""
    given = {**without(keys, "BPR"), "trials": 1, "sanity_rows": False, "SASRec.search": {"learning_rate": [0.05]}}
    given |= {"SASRec@own.search": {"n_layers": [2]}, "SASRec@low.learning_rate": 0.002}
    given["SASRec@low.search"] = {"n_heads": [1]}
    models = ["SASRec", "SASRec@own", "SASRec@low"]
    done = search(models, config_dict=given, run_dir=tmp_path / "s")
    best = yaml.safe_load((tmp_path / "s" / "best.yaml").read_text())
    assert best == {
        "SASRec.learning_rate": 0.05,
        "SASRec@own.learning_rate": 0.001, "SASRec@own.n_layers": 2,
        "SASRec@low.learning_rate": 0.002, "SASRec@low.n_heads": 1,
    }  # fmt: skip
    mine = {key: value for key, value in given.items() if key != "trials"}
    for model in models:
        tried = yaml.safe_load((tmp_path / "s" / model / "trial-1" / "config.yaml").read_text())
        assert saved_keys(Config(model, config_dict={**mine, **best}).settings) == tried
    assert done["failed"] == []


def test_the_report_of_given_trials():
    costs = {"epochs": 12, "best_epoch": 9, "converged": True, "stop_reason": "early stopping", "training_seconds": 90}
    row = {"model": "A@x", "trial": 1, "keys": {"lr": 0.1, "sizes": [64, 8]}, "best_valid_score": 0.123456}
    row |= {"best_valid_result": {"ndcg@10": 0.123456}, "test_result": {"ndcg@10": 0.9}, "costs": costs}
    failed = {"model": "A@x", "trial": 2, "keys": {"lr": 0.2, "sizes": []}, "error": "loss is\nnan"}
    trials = [search_report.trial_of(row, picked=True), search_report.trial_of(failed, picked=False)]
    spaces = {"A@x": {"lr": [0.1, 0.2], "sizes": [[64, 8], []]}}
    header = {"dataset": "d", "trials": 2, "valid_metric": "NDCG@10", "seed": 7, "spaces": spaces}
    assert search_report.to_markdown(trials, header) == (
        "- data set: d\n- trials of each model: 2\n- picked by: NDCG@10 on validation\n- drawn from seed: 7\n"
        "- A@x.search: lr [0.1, 0.2], sizes [[64, 8], []] (4 combinations)\n\n"
        "| model | trial | keys | NDCG@10 (validation) | picked | epochs | stopped | training |\n"
        "| --- | ---: | --- | ---: | --- | ---: | --- | ---: |\n"
        "| A@x | 1 | lr 0.1, sizes [64, 8] | **0.1235** | yes | 12 | early stopping | 1m 30s |\n"
        "| A@x | 2 | lr 0.2, sizes [] | – |  | – | failed | – |\n\n"
        "- Training of all trials: A@x 1m 30s\n- A@x, trial 2 failed with lr 0.2, sizes []: loss is nan\n"
    )
    assert search_report.to_csv(trials, header) == (
        "model,trial,picked,lr,sizes,valid_score,epochs,best_epoch,converged,stop_reason,training_seconds,error\n"
        'A@x,1,True,0.1,"[64, 8]",0.123456,12,9,True,early stopping,90,\n'
        'A@x,2,False,0.2,[],,,,,,,"loss is\nnan"\n'
    )


def test_the_command_line_and_one_model_alone(keys, tmp_path, started, capsys, without):
    from recbole_hllm import cli

    given = {**without(keys, "BPR"), "trials": None}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(given))
    words = [f"--config_files={tmp_path / 'keys.yaml'}", f"--run_dir={tmp_path / 's'}", "--model=SASRec"]
    assert cli.main([*words, "--trials=2"]) == 0
    assert started == ["SASRec/trial-1", "SASRec/trial-2", "s/Markov"]
    printed = capsys.readouterr().out
    assert "SASRec, trial 2 of 2, hidden_dropout_prob" in printed and "best of 2 trials by MRR@10" in printed
    assert cli.main([*words, "--trials=2", "--plan"]) == 2
    assert "--plan estimates one run of each model" in capsys.readouterr().err


def test_variants_are_searched_in_the_space_of_their_model_without_the_keys_they_fix(keys, tmp_path, started, without):
    given = {**without(keys, "BPR"), "trials": 2, "sanity_rows": False, "SASRec@low.learning_rate": 0.001}
    given |= {"SASRec@own.search": {"hidden_size": [4, 8]}, "SASRec@own.seed": 7}
    done = search(["SASRec@low", "SASRec@own"], config_dict=given, run_dir=tmp_path / "s")
    drawn = [trial["keys"] for trial in done["trials"]]
    assert drawn[:2] == draw({"hidden_dropout_prob": [0.1, 0.3]}, 2, 2020)
    assert drawn[2:] == draw({"hidden_size": [4, 8]}, 2, 7)
    config = yaml.safe_load((tmp_path / "s" / "SASRec@low" / "trial-2" / "config.yaml").read_text())
    assert (config["learning_rate"], config["hidden_dropout_prob"]) == (0.001, drawn[1]["hidden_dropout_prob"])
    assert json_of(tmp_path / "s", "search.json")["header"]["seed"] == "SASRec@low 2020, SASRec@own 7"


def test_a_finished_search_repeats_nothing_and_more_trials_go_on(keys, tmp_path, started, capsys):
    from recbole_hllm import cli

    folder = tmp_path / "s"
    first = search(["SASRec", "BPR"], config_dict={**keys, "trials": 2}, run_dir=folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    started.clear()
    assert cli.main(["--resume", f"--run_dir={folder}"]) == 0
    assert started == [] and {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    more = search(config_dict={"resume": True, "trials": 3, "show_progress": False}, run_dir=folder)
    assert started == ["SASRec/trial-3", "BPR/trial-3"]
    assert [trial["keys"] for trial in more["trials"] if trial["model"] == "BPR"] == draw(BPR, 3, 2020)
    kept = [{**trial, "picked": None} for trial in more["trials"] if trial["trial"] < 3]
    assert kept == [{**trial, "picked": None} for trial in first["trials"]]
    with pytest.raises(ConfigError, match="trials: 2 are fewer than the 3 that"):
        search(config_dict={"resume": True, "trials": 2}, run_dir=folder)


# ---- bad input ----


def replaced(keys, **changed):
    changed = {key.replace("_search", ".search"): value for key, value in changed.items()}
    return {key: value for key, value in {**keys, **changed}.items() if value != "gone"}


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"trials": 0}, "trials: 0 must be at least 1"),
        ({"trials": -2}, "trials: -2 must be at least 1"),
        ({"trials": 2.5}, "trials: 2.5 is not a whole number"),
        ({"trials": "four"}, "trials: 'four' is not a number"),
        ({"trials": True}, "trials: True is not a number"),
        ({"trials": "gone"}, "trials: say how many of each model"),
        ({"trials": 7}, "SASRec.search: 6 combinations of values, fewer than 7 trials"),
        ({"BPR_search": {"learning_rate": [0.1]}}, "BPR.search: 1 combination of values, fewer than 3 trials"),
        ({"BPR_search": "gone"}, "trials: BPR has nothing to draw 3 from; give BPR.search"),
        ({"BPR_search": "gone", "SASRec_search": "gone"}, "trials: SASRec has nothing to draw 3 from"),
        ({"BPR_search": [0.1]}, "BPR: search: [0.1] is not a dict"),
        ({"BPR_search": {}}, "BPR.search: {} is not a dict of keys"),
        ({"BPR_search": {"learning_rate": 0.1}}, "BPR.search: learning_rate: 0.1 is not a list of values"),
        ({"BPR_search": {"learning_rate": "0.1"}}, "BPR.search: learning_rate: '0.1' is not a list of values"),
        ({"BPR_search": {"learning_rate": []}}, "BPR.search: learning_rate: [] is not a list of values"),
        ({"BPR_search": {"epochs": [1, 2, 1.0]}}, "BPR.search: epochs: [1, 2, 1.0] has a value twice"),
        (
            {"SASRec_search": {"learning_rat": [1, 2, 3]}},
            "SASRec.search: 'learning_rat' is not a key of SASRec; did you mean 'learning_rate'?",
        ),
        ({"SASRec_search": {"embedding_size_of": [1, 2, 3]}}, "'embedding_size_of' is not a key of SASRec"),
        ({"SASRec_search": {"num_layers": [1, 2, 3]}}, "'num_layers' is not a key of SASRec; did you mean 'n_layers'?"),
        ({"SASRec_search": {1: [1, 2, 3]}}, "SASRec.search: '1' is not a key of SASRec"),
        ({"SASRec_search": {"topk": [[1], [2], [3]]}}, "SASRec.search: 'topk' is shared by all rows"),
        ({"SASRec_search": {"trials": [1, 2, 3]}}, "SASRec.search: 'trials' is shared by all rows"),
        ({"SASRec_search": {"seed": [1, 2, 3]}}, "SASRec.search: 'seed' cannot be searched"),
        ({"SASRec_search": {"trust_remote_code": [True, False]}}, "SASRec.search: 'trust_remote_code' cannot be"),
        *(
            ({"SASRec_search": {key: [0, 1, 2]}}, f"SASRec.search: '{key}' cannot be searched")
            for key in ("state", "gpu_id", "use_gpu", "worker", "show_progress", "cache_dir")
        ),
        (
            {"SASRec.learning_rate": 0.5},
            "SASRec.learning_rate: SASRec.search draws this key; leave one of the two out",
        ),
        ({"BPR.embedding_size": 16}, "BPR.embedding_size: BPR.search draws this key"),
        ({"SASRec_search": {"search": [1, 2, 3]}}, "SASRec.search: 'search' cannot be searched"),
        (
            {"SASRec_search": {"learning_rate": [0.1, 0.2, 0.3, "fast"]}},
            "SASRec.search: learning_rate fast: learning_rate: 'fast' is not a number",
        ),
        (
            {"SASRec_search": {"reference": [["warmup"], ["mask_target"], False]}},
            "reference: mask_target would be of the table or a trial alone, and decides what is evaluated",
        ),
        ({"SASRec_search": {"precision": ["fp32", "bf16", "fp8"]}}, "SASRec.search: precision fp8: precision: 'fp8'"),
        ({"GRU4Rec_search": {"learning_rate": [0.1]}}, "'GRU4Rec' is not a model of this run (SASRec, BPR, Markov)"),
        ({"SASRek_search": {"learning_rate": [0.1]}}, "'SASRek' is not a model; did you mean 'SASRec'"),
        ({"search": SASREC}, "'search' is a key of one model: write <Model>.search"),
        ({"SASRec.trials": 4}, "'SASRec.trials' is of a search, the same number for all models"),
        ({"eval_step": 0}, "trials: without validation (eval_step, eval_args) no trial of SASRec can be picked"),
        ({"eval_args": {"split": {"LS": "test_only"}}}, "trials: without validation"),
        ({"eval_args": {"split": {"RS": [0.8, 0, 0.2]}}}, "trials: without validation"),
        ({"eval_args": {"split": {"TS": [0.8, 0.0, 0.2]}}}, "trials: without validation"),
        ({"evaluate_only": True}, "evaluate_only: one run at a time"),
        ({"resume": True}, "run_dir: there is no table in"),
    ],
)
def test_wrong_keys_are_refused_before_anything_runs(keys, tmp_path, started, changed, said):
    with pytest.raises(ConfigError) as caught:
        search(["SASRec", "BPR"], config_dict=replaced(keys, **changed), run_dir=tmp_path / "s")
    assert said in str(caught.value)
    assert started == [] and list(tmp_path.iterdir()) == []


def test_a_value_that_only_the_model_refuses_is_refused_before_the_first_trial(settings_of, tmp_path, started):
    keys = {**settings_of("LLMIDRec"), "trials": 2, "sanity_rows": False}
    sizes = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 8}
    space = {"user_llm_config": [{**sizes, "n_positions": 8}, {**sizes, "n_positions": 4}]}
    with pytest.raises(ConfigError, match="^LLMIDRec.search: .*MAX_ITEM_LIST_LENGTH: 5 items do not fit"):
        search(["LLMIDRec"], config_dict={**keys, "LLMIDRec.search": space}, run_dir=tmp_path / "s")
    assert started == [] and list(tmp_path.iterdir()) == []


def test_a_variants_own_key_beside_its_own_search_is_refused(keys, tmp_path, started, without):
    given = {**without(keys, "BPR"), "SASRec@own.search": SASREC, "SASRec@own.hidden_dropout_prob": 0.2}
    with pytest.raises(ConfigError, match="SASRec@own.hidden_dropout_prob: SASRec@own.search draws this key"):
        search(["SASRec", "SASRec@own"], config_dict=given, run_dir=tmp_path / "s")
    assert started == []


def test_one_name_and_one_file_need_no_list(keys, tmp_path, started, without):
    file = tmp_path / "keys.yaml"
    for models, given in (("SASRec", without(keys, "BPR")), ("SASRec, BPR", keys)):
        file.write_text(yaml.safe_dump({**given, "trials": 7}))
        for one in (file, str(file), [file]):
            with pytest.raises(ConfigError, match="SASRec.search: 6 combinations of values, fewer than 7 trials"):
                search(models, None, one, run_dir=tmp_path / "s")


def test_models_without_anything_to_search(keys, tmp_path, started):
    given = {key: value for key, value in keys.items() if "." not in key}
    with pytest.raises(ConfigError, match="trials: none of Pop, Markov has anything to search"):
        search(["Pop"], config_dict=given, run_dir=tmp_path / "s")
    with pytest.raises(ConfigError, match="model is not set"):
        search([], config_dict=given, run_dir=tmp_path / "s")


@pytest.mark.parametrize("there", ["search.md", "best.yaml", "keys.yaml", "SASRec"])
def test_a_folder_that_holds_something_is_not_touched(keys, tmp_path, started, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(ConfigError, match=f"already holds a run \\({there}\\)"):
        search(["SASRec", "BPR"], config_dict=keys, run_dir=tmp_path)
    assert started == [] and (tmp_path / there).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_trials_of_something_else_than_a_search_are_refused(keys, tmp_path, started, without):
    with pytest.raises(ConfigError, match="'trials' is of a search"):
        run("SASRec", config_dict=without(keys, "BPR"), run_dir=tmp_path / "r")
    with pytest.raises(ConfigError, match="trials: this is one run of each model"):
        compare(["SASRec", "BPR"], config_dict=keys, run_dir=tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_the_spaces_that_come_with_the_package(toy, tmp_path, monkeypatch):
    """At least four combinations of each model, all of which can be drawn for a data set with texts."""
    from recbole_hllm.tables import search as module

    monkeypatch.setattr(module, "start", lambda table: (_ for _ in ()).throw(InterruptedError))
    keys = yaml.safe_load((ROOT / "properties" / "benchmark" / "search.yaml").read_text())
    assert {key for key in keys if key.endswith(".search")} == {f"{model}.search" for model in keys["model"]}
    files, given = [ROOT / "properties" / "benchmark" / "search.yaml"], {"data_path": toy, "trials": 4}
    with pytest.raises(InterruptedError):  # everything is checked, and nothing run
        search(None, "toy", files, given, run_dir=tmp_path / "s")
