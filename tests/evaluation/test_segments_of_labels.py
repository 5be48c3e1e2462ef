"""Segments of labelled runs: of the kept scores, against scikit-learn and whole runs."""

import random

import numpy as np
import pytest
import yaml
from sklearn.metrics import log_loss, roc_auc_score

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.evaluation.segments import segment_metrics, segment_table
from recbole_hllm.runs.run import evaluate_run
from recbole_hllm.storage.files import read_json

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

METRICS = ["AUC", "LogLoss", "GAUC", "UAUC", "WUAUC"]
KEYS = {"metrics": METRICS, "topk": [10], "segments_user": [1, 5], "segments_item": [3], "eval_targets": "each"}


def scores(*rows):
    names = ("user", "label", "score", "history_length", "popularity")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def test_cases_worked_out_by_hand():
    kept = scores(
        (1, 1, 0.8, 0, 2), (1, 0, 0.9, 0, 3), (1, 0, 0.1, 0, 9),  # cold, 1 of 2 pairs right
        (2, 1, 0.5, 4, 0), (2, 0, 0.25, 4, 0), (3, 1, 0.2, 1, 7),  # user 3 has one class
        (4, 1, 0.5, 9, 9),
    )  # fmt: skip
    table = segment_metrics(kept, KEYS)
    assert [(row["segment"], row["rows"]) for row in table["history_length"]] == [("0", 3), ("1-4", 3), (">= 5", 1)]
    assert [(row["segment"], row["rows"]) for row in table["popularity"]] == [("0-2", 3), (">= 3", 4)]
    cold, tail, other = table["history_length"]
    assert (cold["auc"], cold["gauc"], cold["uauc"], cold["wuauc"]) == (0.5, 0.5, 0.5, 0.5)
    assert (tail["auc"], tail["uauc"], tail["gauc"]) == (0.5, 1.0, 1.0)
    assert tail["logloss"] == pytest.approx(-np.log([0.5, 0.75, 0.2]).mean())
    assert (other["auc"], other["gauc"], other["uauc"]) == (None, None, None)
    assert other["logloss"] == pytest.approx(np.log(2)), "one class has a loss"
    few, many = table["popularity"]
    assert few["uauc"] == 1.0 and few["auc"] == 1.0
    assert many["auc"] == pytest.approx(2 / 4) and many["uauc"] is None, "user 1 has only dislikes among these items"


def test_a_segment_without_rows_has_no_metrics():
    row = segment_metrics(scores((1, 1, 0.8, 3, 2), (1, 0, 0.9, 3, 3)), KEYS)["history_length"][0]
    assert row == {"segment": "0", "rows": 0, **dict.fromkeys(("auc", "logloss", "gauc", "uauc", "wuauc"))}


@pytest.fixture(scope="module")
def rows():
    """(user, item, label, time): a few users and items have much, some come late."""
    draw = random.Random(5)
    skewed = [(f"u{int(12 * draw.random() ** 2)}", f"i{int(15 * draw.random() ** 2)}") for _ in range(150)]
    skewed[100::3] = [(f"late{draw.randint(0, 2)}", f"i{draw.randint(10, 19)}") for _ in skewed[100::3]]
    return [(user, item, draw.randint(0, 1), time) for time, (user, item) in enumerate(skewed)]


@pytest.fixture(scope="module")
def finished(settings_of, rows, write_dataset, tmp_path_factory):
    """Folder of a run of DIN on these rows."""
    folder = tmp_path_factory.mktemp("labels")
    write_dataset(folder, "toy", rows, header="user_id:token\titem_id:token\tlabel:float\ttimestamp:float")
    keys = {**settings_of("DIN"), "data_path": str(folder), "metrics": METRICS, "valid_metric": "UAUC",
            "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}}, "segments_user": [1, 10],
            "segments_item": [1, 5]}  # fmt: skip
    run("DIN", config_dict=keys, run_dir=folder / "DIN")
    return folder / "DIN"


def kept_of(folder):
    with np.load(folder / "scores-test.npz") as file:
        return {name: file[name] for name in file.files}


def test_lengths_and_popularity_are_those_of_the_training_rows(finished, rows):
    """The first 60 % of all events, whatever their labels."""
    kept, data = kept_of(finished), load_run(finished).dataset
    for array, field, column in (("history_length", "user", 0), ("popularity", "item", 1)):
        had = [row[column] for row in rows[: len(rows) * 6 // 10]]
        tokens = data.id2token(f"{field}_id", kept[field])
        assert kept[array].tolist() == [had.count(token) for token in tokens] and len(set(kept[array])) > 1


def test_segments_add_up_and_are_scikit_learns(finished):
    kept, table = kept_of(finished), read_json(finished / "segments.json")
    assert table == segment_table(finished)
    for array, bounds in (("history_length", [0, 1, 10, 99]), ("popularity", [0, 1, 5, 99])):
        assert sum(row["rows"] for row in table[array]) == len(kept["score"])
        assert all(row["rows"] for row in table[array])
        for row, first, end in zip(table[array], bounds, bounds[1:], strict=False):
            inside = (kept[array] >= first) & (kept[array] < end)
            users, labels, values = (kept[name][inside] for name in ("user", "label", "score"))
            assert row["rows"] == inside.sum()
            aucs = {user: _auc(labels[users == user], values[users == user]) for user in users}
            aucs = {user: auc for user, auc in aucs.items() if auc is not None}
            weights = [(users == user).sum() for user in aucs]
            expected = {
                "auc": _auc(labels, values), "logloss": log_loss(labels, values.astype(float), labels=[0, 1]),
                "uauc": np.mean(list(aucs.values())) if aucs else None,
                "gauc": np.average(list(aucs.values()), weights=weights) if aucs else None,
            }  # fmt: skip
            for name, value in expected.items():
                assert row[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name
            assert row["wuauc"] == row["gauc"]


def _auc(labels, values):
    return roc_auc_score(labels, values) if labels.min() < labels.max() else None


def test_one_segment_is_the_whole(finished):
    table = segment_table(finished, segments_user=[99], segments_item=[99])
    result = read_json(finished / "metrics.json")["test_result"]
    for rows in table.values():
        assert {name: rows[0][name] for name in result} == pytest.approx(result, abs=1e-9)
        assert rows[1]["rows"] == 0


def test_an_evaluation_with_other_keys_has_its_own_segments(finished):
    evaluate_run(finished, {"metrics": ["UAUC", "RMSE"], "segments_item": [6]})
    again = read_json(finished / "evaluation-1.json")
    first = read_json(finished / "segments.json")["history_length"]
    assert list(again["segments"]["popularity"][0]) == ["segment", "rows", "uauc", "rmse"]
    assert [row["segment"] for row in again["segments"]["popularity"]] == ["0-5", ">= 6"]
    assert [row["uauc"] for row in again["segments"]["history_length"]] == [row["uauc"] for row in first]
    squares = [row["rows"] * (row["rmse"] or 0) ** 2 for row in again["segments"]["popularity"]]
    whole = (sum(squares) / sum(row["rows"] for row in first)) ** 0.5
    assert whole == pytest.approx(again["test_result"]["rmse"], abs=1e-6)


def test_scores_of_an_earlier_version(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(KEYS))
    with pytest.raises(ConfigError, match="no finished run with a test .*: no ranks-test.npz or scores-test.npz"):
        segment_table(tmp_path)
    columns = {name: np.array([1]) for name in ("user", "item", "label", "score")}
    np.savez(tmp_path / "scores-test.npz", **columns)
    with pytest.raises(ModelError, match="scores-test.npz has no history_length, popularity: .* earlier version"):
        segment_table(tmp_path)
    (tmp_path / "scores-test.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ModelError, match="scores-test.npz is damaged"):
        segment_table(tmp_path)
