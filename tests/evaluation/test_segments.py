"""Metrics by segment: against plain formulas, against RecBole's Evaluator, and for any finished run."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_hllm import Config, create_dataset, data_preparation, load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.evaluation.segments import SEGMENTED_BY, by_user, describe, segment_metrics, segment_table
from recbole_hllm.runs.run import evaluate_run
from recbole_hllm.storage.files import read_json

METRICS = ["Recall", "Hit", "NDCG", "MRR", "Precision", "MAP"]
KEYS = {
    "metrics": METRICS, "topk": [1, 3, 10], "eval_targets": "each", "segments_user": [1, 36], "segments_item": [1, 30],
}  # fmt: skip


def keys_of(settings_of, model):
    return {**settings_of(model), "metrics": METRICS, "segments_user": [5, 6], "segments_item": [6, 7]}


@pytest.fixture(scope="module")
def finished(settings_of, tmp_path_factory):
    """(model, **keys) -> result of one run each."""
    runs = {}

    def of(model, **keys):
        key = (model, str(keys))
        if key not in runs:
            folder = tmp_path_factory.mktemp("segments") / model
            runs[key] = run(model, config_dict={**keys_of(settings_of, model), **keys}, run_dir=folder)
        return runs[key]

    return of


def path_of(result, name):
    return Path(result["run_dir"]) / name


def ranks(*rows):
    names = ("rank", "history_length", "popularity")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


# ---- numbers ----


def test_plain_formulas():
    table = segment_metrics(ranks((1, 0, 0), (3, 1, 29), (4, 35, 30), (200, 36, 31), (2, 99, 500)), KEYS)
    users, items = table["history_length"], table["popularity"]
    assert [(row["segment"], row["targets"]) for row in users] == [("0", 1), ("1-35", 2), (">= 36", 2)]
    assert [(row["segment"], row["targets"]) for row in items] == [("0", 1), ("1-29", 1), (">= 30", 3)]
    for metric in ("recall", "hit", "ndcg", "mrr", "precision", "map"):
        assert users[0][f"{metric}@1"] == 1 and items[2][f"{metric}@1"] == 0
    expected = {
        "recall@3": 1 / 2, "hit@3": 1 / 2, "precision@3": 1 / 6, "mrr@3": 1 / 6, "map@3": 1 / 6, "ndcg@3": 1 / 4,
        "recall@10": 1, "precision@10": 1 / 10, "mrr@10": (1 / 3 + 1 / 4) / 2,
        "ndcg@10": (1 / 2 + 1 / np.log2(5)) / 2,
    }  # fmt: skip
    assert {name: users[1][name] for name in expected} == pytest.approx(expected)
    assert users[2]["mrr@3"] == pytest.approx((0 + 1 / 2) / 2)


def test_a_segment_without_targets_has_no_metrics():
    table = segment_metrics(ranks((1, 4, 50)), KEYS)
    assert [row["targets"] for row in table["history_length"]] == [0, 1, 0]
    assert table["history_length"][0]["recall@1"] is None and table["history_length"][1]["recall@1"] == 1.0


@pytest.mark.parametrize(
    "bounds, labels",
    [
        ([1, 36], ["0", "1-35", ">= 36"]), ([36, 1, 1], ["0", "1-35", ">= 36"]), (10, ["0-9", ">= 10"]),
        ([2, 3, 10], ["0-1", "2", "3-9", ">= 10"]), ([], [">= 0"]),
    ],
)  # fmt: skip
def test_bounds_are_where_segments_begin(bounds, labels):
    rows = ranks(*((1, number, 0) for number in range(40)))
    table = segment_metrics(rows, {**KEYS, "segments_user": bounds})["history_length"]
    assert [row["segment"] for row in table] == labels
    for row, label in zip(table, labels, strict=True):
        first, last = (label[3:], 39) if ">=" in label else (label.split("-") * 2)[:2]
        assert row["targets"] == int(last) - int(first) + 1


def test_metrics_that_no_rank_gives_are_left_out():
    table = segment_metrics(ranks((1, 4, 50)), {**KEYS, "metrics": ["Recall", "ItemCoverage", "GAUC"], "topk": 5})
    assert set(table["popularity"][0]) == {"segment", "targets", "recall@5"}


# ---- runs ----


@pytest.mark.parametrize("keys", [{}, {"eval_args": {"mode": "uni3"}}, {"mask_history": True}], ids=str)
@pytest.mark.parametrize("model", ["Pop", "SASRec", "Markov"])
def test_the_weighted_mean_of_segments_is_what_recboles_evaluator_gives(finished, model, keys):
    result = finished(model, **keys)
    table = read_json(path_of(result, "segments.json"))
    metrics = read_json(path_of(result, "metrics.json"))["test_result"]
    assert table.keys() == set(SEGMENTED_BY.values())
    for rows in table.values():
        assert sum(row["targets"] for row in rows) == 14 and sum(row["targets"] > 0 for row in rows) > 1
        whole = {
            name: sum(row["targets"] * (row[name] or 0) for row in rows) / 14 for name in rows[0] if "@" in name
        }
        assert whole == pytest.approx(metrics, abs=1e-9)


def test_lengths_and_popularity_are_those_of_the_training_data(finished, toy):
    """Counted from the file: all but each user's last two events, in the order of time."""
    result = finished("Pop")
    dataset = load_run(result["run_dir"]).dataset
    lines = [line.split("\t") for line in _read_toy(toy)]
    trained = {}
    for user, item, _ in sorted(lines, key=lambda line: float(line[2])):
        trained.setdefault(user, []).append(item)
    trained = {user: items[:-2] for user, items in trained.items()}
    everything = [item for items in trained.values() for item in items]
    for phase in ("valid", "test"):
        with np.load(path_of(result, f"ranks-{phase}.npz")) as arrays:
            users = dataset.id2token("user_id", arrays["user"])
            items = dataset.id2token("item_id", arrays["target"])
            assert arrays["history_length"].tolist() == [len(trained[user]) for user in users]
            assert arrays["popularity"].tolist() == [everything.count(item) for item in items]


def _read_toy(folder):
    with open(f"{folder}/toy/toy.inter") as file:
        return file.read().splitlines()[1:]


def test_users_and_items_of_a_split_in_time_can_be_cold(tmp_path, write_dataset):
    """Trained: the first eight events. Tested: u3, new, with b, and u1 with z, new."""
    events = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u1", "c"), ("u2", "c"), ("u2", "b"), ("u1", "a"), ("u2", "a"),
              ("u3", "a"), ("u3", "z"), ("u3", "b"), ("u1", "z")]  # fmt: skip
    write_dataset(tmp_path, "toy", [(user, item, time) for time, (user, item) in enumerate(events)])
    keys = {"data_path": str(tmp_path), "topk": [2], "valid_metric": "MRR@2", "show_progress": False,
            "eval_args": {"split": {"RS": [0.5, 0.2, 0.3]}, "group_by": "none", "order": "TO"}}  # fmt: skip
    result = run("Pop", "toy", config_dict=keys, run_dir=tmp_path / "run")
    rows = read_json(tmp_path / "run" / "segments.json")
    assert [(row["segment"], row["targets"]) for row in rows["history_length"]] == [("0", 1), ("1-35", 1), (">= 36", 0)]
    assert [(row["segment"], row["targets"]) for row in rows["popularity"]] == [("0", 1), ("1-29", 1), (">= 30", 0)]
    assert rows["history_length"][0]["recall@2"] == rows["popularity"][1]["recall@2"] == 1.0
    assert result["test_result"]["recall@2"] == pytest.approx(
        sum(row["targets"] * (row["recall@2"] or 0) for row in rows["popularity"]) / 2, abs=1e-4
    )


def test_a_users_ready_made_rows_are_one_history(finished):
    """Several sequences of one user add up, whichever of them is tested."""

    class Data:
        sequences = type("Sequences", (), {"users": np.array([1, 1, 2, 1])})
        whole_training, user_num = (None, np.array([4, 0, 3, 2])), 4

        def whole_counts(self):
            return np.array([0, 5, 7])

    described = describe({"user": np.array([1, 3]), "target": np.array([2, 1])}, Data())
    assert described["history_length"].tolist() == [6, 0] and described["popularity"].tolist() == [7, 5]


def test_other_bounds_need_no_other_run(finished):
    folder = finished("SASRec")["run_dir"]
    assert segment_table(folder) == read_json(path_of({"run_dir": folder}, "segments.json"))
    table = segment_table(folder, segments_user=[6], segments_item=100)
    assert [row["segment"] for row in table["history_length"]] == ["0-5", ">= 6"]
    assert [row["targets"] for row in table["popularity"]] == [14, 0]


def test_an_evaluation_with_other_keys_has_its_own_segments(finished):
    folder = finished("SASRec")["run_dir"]
    evaluate_run(folder, {"topk": [2], "metrics": ["Hit"], "segments_user": [7]})
    kept = read_json(path_of({"run_dir": folder}, "evaluation-1.json"))
    rows = kept["segments"]["history_length"]
    assert [row["segment"] for row in rows] == ["0-6", ">= 7"] and rows[0].keys() == {"segment", "targets", "hit@2"}
    whole = sum(row["targets"] * (row["hit@2"] or 0) for row in rows) / 14
    assert whole == pytest.approx(kept["test_result"]["hit@2"], abs=1e-9)


def test_a_run_without_a_test_has_none(settings_of, tmp_path):
    keys = {**settings_of("Pop"), "eval_args": {"split": {"LS": "valid_only"}}}
    run("Pop", config_dict=keys, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "segments.json").exists()
    with pytest.raises(ConfigError, match="no finished run with a test .*: no ranks-test.npz"):
        segment_table(tmp_path / "run")
    evaluate_run(tmp_path / "run")
    assert "segments" not in read_json(tmp_path / "run" / "evaluation-1.json")


# ---- bad input ----


@pytest.mark.parametrize("value", ["cold", [0, 5], [1, "many"], [1.5], None, {"cold": 0}, True, [-1]])
@pytest.mark.parametrize("key", ["segments_user", "segments_item"])
def test_an_unknown_rule_is_refused_by_key_before_anything_runs(settings_of, tmp_path, key, value):
    with pytest.raises(ConfigError, match=f"^{key}"):
        run("Pop", config_dict={**settings_of("Pop"), key: value}, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_rule_is_refused_afterwards_too(finished):
    with pytest.raises(ConfigError, match="segments_item: 'rare' is not a number"):
        segment_table(finished("SASRec")["run_dir"], segments_item="rare")


def test_no_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"no finished run with a test in {tmp_path}: no config.yaml"):
        segment_table(tmp_path)


def test_files_that_are_damaged_or_of_an_earlier_version(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(KEYS))
    (tmp_path / "ranks-test.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ModelError, match="ranks-test.npz is damaged"):
        segment_table(tmp_path)
    np.savez(tmp_path / "ranks-test.npz", user=np.array([1]), target=np.array([1]), rank=np.array([1]))
    with pytest.raises(ModelError, match="ranks-test.npz has no history_length, popularity: .* earlier version"):
        segment_table(tmp_path)
    np.savez(tmp_path / "ranks-test.npz", rank=np.array([{"any": "object"}]))
    with pytest.raises(ModelError, match="ranks-test.npz is damaged"):
        segment_table(tmp_path)


def test_segments_do_not_depend_on_what_is_trained_on(settings_of):
    """Rows of one table with several shares of the users have the same segments."""

    def described(**keys):
        config = Config("SASRec", config_dict={**settings_of("SASRec"), **keys})
        data = create_dataset(config)
        test = data.build()[2]
        users = test.sequences.users[test.sequences.of(test.targets)]
        ranks = {"user": users, "target": test.sequences.items[test.targets], "rank": np.ones(len(users))}
        return describe(ranks, data)

    whole, parts = described(), [described(train_user_fraction=0.5), described(train_min_items=6, train_first_items=2)]
    assert whole["history_length"].min() > 0
    for part, name in product(parts, ("history_length", "popularity")):
        assert np.array_equal(whole[name], part[name])


def test_candidates_by_popularity_do_not_depend_on_it_either(settings_of):
    keys = settings_of("SASRec") | {"eval_args": {"mode": "pop3"}}
    loaders = []
    for part in ({}, {"train_user_fraction": 0.5, "train_min_items": 6, "train_first_items": 2}):
        config = Config("SASRec", config_dict={**keys, **part})
        loaders.append(data_preparation(config, create_dataset(config))[2])
    assert np.array_equal(*(loader.candidates for loader in loaders))


# ---- user by user ----

SPLIT = {"eval_args": {"split": {"RS": [0.4, 0.2, 0.4]}}}


@pytest.mark.parametrize("model, targets", [("SASRec", "each"), ("Pop", "each"), ("SASRec", "together")])
def test_the_metric_is_what_users_add_up_to(finished, model, targets):
    result = finished(model, **SPLIT, eval_targets=targets)
    expected = [1] * 14 if targets == "together" else [2, 2, 2, 3] * 3 + [2, 2]  # of 6 to 9 items, the first no target
    for metric, value in result["test_result"].items():
        sums, counts = by_user(result["run_dir"], metric)
        assert sums.sum() / counts.sum() == pytest.approx(value, abs=1e-9), metric
        assert len(sums) == 14 and counts.tolist() == expected


def test_metrics_and_runs_that_no_rank_gives(finished, tmp_path):
    folder = finished("SASRec", **SPLIT, eval_targets="each")["run_dir"]
    for metric in ("auc", "coverage@10", "ndcg", "ndcg@x"):
        assert by_user(folder, metric) is None
    assert by_user(tmp_path, "ndcg@10") is None
