"""A row of several runs: means and deviations, and what seeds may be."""

import numpy as np
import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.tables.seeds import checked_seeds, common, further_columns, over_seeds
from recbole_hllm.tables.table import to_console, to_csv, to_markdown


def a_run(value, seconds=1.0, reason="early stopping", epochs=3, digest="x"):
    """A row as of one run."""
    return {
        "model": "A",
        "test_result": {"mrr@10": value, "hit@10": 2 * value},
        "best_valid_score": value + 1,
        "best_valid_result": {"mrr@10": value + 1},
        "valid_score_bigger": True,
        "costs": {"epochs": epochs, "training_seconds": seconds, "converged": reason == "early stopping",
                  "stop_reason": reason, "throughput": {"rows": seconds}, "best_epoch": None},
        "protocol": {"fingerprint": {"items": digest}, "seed": 1},
        "segments": {kind: [{"segment": "0", "targets": 4, "mrr@10": value, "hit@10": None}]
                     for kind in ("history_length", "popularity")},
    }  # fmt: skip


@pytest.fixture
def row():
    runs = {1: a_run(0.1), 2: a_run(0.2, 2.0, "limit of 4 epochs", 4), 5: a_run(0.25, 3.0)}
    return over_seeds("A", runs)


def test_means_and_deviations(row):
    values = np.array([0.1, 0.2, 0.25])
    assert row["test_result"] == pytest.approx({"mrr@10": values.mean(), "hit@10": 2 * values.mean()})
    assert row["deviations"] == pytest.approx({"mrr@10": values.std(ddof=1), "hit@10": 2 * values.std(ddof=1)})
    assert row["best_valid_score"] == pytest.approx(values.mean() + 1) and row["valid_score_bigger"] is True
    assert row["seeds"] == [1, 2, 5] and [run["seed"] for run in row["runs"]] == [1, 2, 5]
    assert [run["test_result"]["mrr@10"] for run in row["runs"]] == [0.1, 0.2, 0.25]
    (segment,) = row["segments"]["popularity"]
    assert segment == {"segment": "0", "targets": 4, "mrr@10": pytest.approx(values.mean()), "hit@10": None}


def test_costs_are_means_and_a_row_has_converged_where_all_its_runs_have(row):
    assert row["costs"] == {
        "epochs": 3, "training_seconds": 2.0, "converged": False, "throughput": {"rows": 2.0}, "best_epoch": None,
        "stop_reason": "early stopping (2 of 3), limit of 4 epochs (1 of 3)",
    }  # fmt: skip


def test_what_each_run_reads_stays_with_the_run():
    runs = {seed: a_run(0.1) for seed in (1, 2)}
    for seed, run in runs.items():
        run["costs"] |= {"alone": {"flops": seed}, "runs_read": {f"HLLM/seed-{seed}": {"flops": 1}}}
    row = over_seeds("A", runs)
    assert not {"alone", "runs_read"} & row["costs"].keys()
    assert row["runs"][1]["costs"]["runs_read"] == {"HLLM/seed-2": {"flops": 1}}


def test_one_run_has_no_deviation():
    row = over_seeds("A", {3: a_run(0.5)})
    assert row["deviations"] == {"mrr@10": None, "hit@10": None} and row["test_result"]["mrr@10"] == 0.5
    assert "0.5000 |" in to_markdown([row], {}) and "±" not in to_markdown([row], {})


@pytest.mark.parametrize(
    "values, expected",
    [
        ([1, 2, 2], 2),
        ([1.0, 2.0], 1.5),
        ([True, False], False),
        ([True, True], True),
        ([None, 3], None),
        (["a", "b", "a"], "a (2 of 3), b (1 of 3)"),
        ([[1.0, {"x": 2}], [3.0, {"x": 4}]], [2.0, {"x": 3}]),
        ([None, None], None),
    ],
    ids=str,
)
def test_one_value_for_several(values, expected):
    assert common(values) == expected


def test_a_row_fails_where_a_run_does_and_where_runs_are_of_other_data():
    failed = over_seeds("A", {1: a_run(0.1), 2: {"model": "A", "error": "no memory"}})
    assert failed["error"] == "seed 2: no memory" and "test_result" not in failed
    assert failed["runs"][0]["test_result"] and failed["runs"][1] == {"seed": 2, "error": "no memory"}
    other = over_seeds("A", {1: a_run(0.1), 2: a_run(0.1, digest="y")})
    assert other["error"] == "seed 2: not comparable with A with seed 1: items differ"


def test_tables_show_deviations_in_the_digits_of_the_runs(row):
    rows = [row, {**a_run(0.3), "model": "Pop"}]
    markdown = to_markdown(rows, {})
    assert "| A | 0.1833 ± 0.0764 | 0.3667 ± 0.1528 |" in markdown and "| Pop | **0.3000** | **0.6000** |" in markdown
    assert "Stopped before convergence: A (early stopping (2 of 3), limit of 4 epochs (1 of 3))" in markdown
    assert "0.1833 ± 0.0764" in to_console(rows, {})
    header, first, second = to_csv(rows).splitlines()
    assert header.endswith(",mrr@10 sd,hit@10 sd") and second.endswith(",,")
    assert first.split(",")[-2].startswith("0.0763")


def test_columns_of_what_was_tested(row):
    test = {"difference": -0.1, "low": -0.2, "high": -0.05, "effect": None, "p": 0.01, "p_holm": 0.02}
    test["verdict"] = "worse"
    columns = further_columns([{**row, "tests": {"mrr@10": test}}, a_run(0.1)], ["mrr@10", "hit@10"])
    assert columns["mrr@10 difference"] == [-0.1, None] and columns["mrr@10 verdict"] == ["worse", None]
    assert "mrr@10 effect" not in columns and list(columns)[-1] == "hit@10 sd"
    assert further_columns([a_run(0.1)], ["mrr@10"]) == {}


def test_what_seeds_may_be():
    assert checked_seeds(None, {}) is None
    assert checked_seeds([3, 1], {"seed": 3, "A.seed": None}) == [3, 1] and checked_seeds(7, {}) == [7]


@pytest.mark.parametrize(
    "value, keys, said",
    [
        ([], {}, r"seeds: \[\] is not a list of different numbers"),
        ([1, 1], {}, r"seeds: \[1, 1\] is not a list of different numbers"),
        ("three", {}, "seeds: 'three' is not a list of int"),
        ([1, 2.5], {}, "seeds: 2.5 is not a whole number"),
        ([-1], {}, "seeds: -1 must be at least 0"),
        (True, {}, "seeds: True is not a"),
        ([1, 2], {"A.seed": 3}, "A.seed: seeds gives every row its seeds"),
        ([1, 2], {"seed": 2}, r"seeds: \[1, 2\] begin with another number than seed: 2"),
    ],
)
def test_wrong_seeds(value, keys, said):
    with pytest.raises(ConfigError, match=said):
        checked_seeds(value, keys)
