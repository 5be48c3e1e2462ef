"""Recommendations of finished runs: the best scores of the test, by the data's own ids, and items by their titles."""

import numpy as np
import pytest

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.runs.recommend import item_names, recommend

# A user u<n> has items (5 n + step) mod 12 for step 0 to 5 + n mod 4; the last is the test's.
U3 = [f"i{(15 + step) % 12}" for step in range(9)]


@pytest.fixture(scope="module")
def finished(settings_of, tmp_path_factory):
    """model -> folder of a run of the toy data, made once."""
    folders = {}

    def of(model):
        if model not in folders:
            folders[model] = tmp_path_factory.mktemp("recommend") / model
            run(model, config_dict={**settings_of(model), "epochs": 1}, run_dir=folders[model])
        return folders[model]

    return of


@pytest.mark.parametrize("model", ["SASRec", "HLLM", "BPR", "Markov"])
def test_the_list_is_the_order_of_the_evaluation(finished, model):
    """Where the list has the target, its place there is the rank that the run kept."""
    loaded = load_run(finished(model))
    users = [f"u{user}" for user in range(14)]
    lists = recommend(loaded, users, k=10)
    kept = dict(np.load(finished(model) / "ranks-test.npz"))
    rank_of = dict(zip(loaded.dataset.id2token("user_id", kept["user"]).tolist(), kept["rank"].tolist(), strict=True))
    for entry in lists:
        (target,) = entry.next_items
        assert len(set(entry.items)) == 10
        assert (entry.items.index(target) + 1 if target in entry.items else 11) == min(rank_of[entry.user], 11)
    assert [entry.user for entry in lists] == users
    assert (lists[3].history, lists[3].next_items) == (U3[:-1], U3[-1:])


def test_the_first_user_of_the_test_where_nobody_is_named(finished):
    (entry,) = recommend(load_run(finished("SASRec")), k=3)
    assert entry.user == "u0" and entry.history == ["i0", "i1", "i2", "i3", "i4"] and len(entry.items) == 3


def test_what_is_masked_or_no_candidate_is_not_recommended(finished):
    masked = load_run(finished("SASRec"), {"mask_history": True})
    (entry,) = recommend(masked, ["u3"], k=10)
    assert sorted(entry.items) == sorted({f"i{item}" for item in range(12)} - {*U3[:-1]})
    drawn = load_run(finished("SASRec"), {"eval_args": {"mode": "uni2"}, "topk": [1], "valid_metric": "MRR@1"})
    (entry,) = recommend(drawn, ["u3"], k=10)
    assert len(entry.items) == 3 and U3[-1] in entry.items and not {*entry.items} & {*U3[:-1]}


def test_who_cannot_be_recommended_anything(finished, settings_of, tmp_path):
    with pytest.raises(DataError, match="user 'u14' is not in 'toy'; did you mean 'u4'"):
        recommend(load_run(finished("SASRec")), ["u14"])
    untested = {**settings_of("Pop"), "eval_args": {"split": {"LS": "valid_only"}}}
    run("Pop", config_dict=untested, run_dir=tmp_path / "untested")
    with pytest.raises(ConfigError, match="untested: a run without a test, or of labelled rows"):
        recommend(load_run(tmp_path / "untested"))


def test_items_by_title(finished, settings_of, write_dataset, tmp_path):
    hllm, sasrec = (item_names(load_run(finished(model))) for model in ("HLLM", "SASRec"))
    assert hllm == sasrec and len(hllm) == 13
    assert (hllm["i0"], hllm["i5"], hllm["i11"]) == ("0 red", "5 blue", "11 grey")
    by_class = item_names(load_run(finished("SASRec"), {"text_keys": ["class"]}))
    assert (by_class["i0"], by_class["i5"]) == ("red", "green")


def test_items_without_a_title_by_id(settings_of, write_dataset, tmp_path):
    rows = [(f"u{user}", f"i{(user + step) % 6}", 100 * step) for user in range(5) for step in range(5)]
    titles = [("i0", "Tom &amp; Jerry  II"), ("i1", "")]  # of the six
    write_dataset(tmp_path, "titled", rows, ("item_id:token\ttitle:token_seq", titles))
    write_dataset(tmp_path, "bare", rows)
    names = {}
    for name in ("titled", "bare"):
        keys = {**settings_of("Pop"), "data_path": str(tmp_path), "dataset": name, "topk": [3], "valid_metric": "MRR@3"}
        run("Pop", config_dict=keys, run_dir=tmp_path / "runs" / name)
        names[name] = item_names(load_run(tmp_path / "runs" / name))
    assert [names["titled"][f"i{item}"] for item in range(3)] == ["Tom & Jerry II", "i1", "i2"]
    assert [names["bare"][f"i{item}"] for item in range(3)] == ["i0", "i1", "i2"]
