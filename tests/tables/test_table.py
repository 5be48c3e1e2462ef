"""Exact text of the side-by-side table in its four forms."""

import json

import numpy as np
import pytest

import recbole_hllm  # noqa: F401  (NumPy names before RecBole)
from recbole_hllm.tables.table import build_table, to_console, to_csv, to_json, to_markdown

HEADER = {
    "dataset": "ml-100k",
    "users": 943,
    "items": 1682,
    "interactions": 100000,
    "mean_length": 106.0445,
    "seed": 2020,
    "split": "leave-one-out",
    "masking": "none",
    "candidates": "all items",
    "metrics": ["recall@10", "giniindex@10"],
    "history_length": 20,
    "valid_metric": "ndcg@10",
}


def row(model, recall, gini, **costs):
    defaults = {
        "parameters_total": 22_713_216,
        "parameters_trained": 22_713_216,
        "epochs": 3,
        "converged": True,
        "stop_reason": "early stopping",
        "preparation_seconds": 61.5,
        "training_seconds": 192.4,
        "evaluation_seconds": 0.84, "scoring_seconds": 0.5, "parameters_inference": 22_713_000,
        "peak_memory_bytes": 1_437_000_000,
    }
    result = {"recall@10": recall, "giniindex@10": gini}
    return {
        "model": model,
        "test_result": result,
        "valid_metric_bigger": True,
        "costs": {**defaults, **costs},
    }


ROWS = [
    row("HLLM", np.float64(0.0881), 0.9, converged=False, stop_reason="limit of 3 epochs"),
    row("SASRec", 0.0881, 0.75, parameters_total=999, parameters_trained=999_960, training_seconds=7_499),
    row("Pop|ular", 0.02, 0.99, parameters_total=4_210, parameters_trained=0, epochs=1, training_seconds=45.2,
        evaluation_seconds=9.97, peak_memory_bytes=350_000_000, stop_reason="nothing to train"),
    {"model": "BERT4Rec", "error": "embedding_size: 64 is\nno multiple of n_heads: 3"},
]  # fmt: skip

MARKDOWN = r"""
- data set: ml-100k, 943 users, 1,682 items, 100,000 interactions, mean length 106.0
- split: leave-one-out
- masking: none
- candidates: all items
- metrics: recall@10, giniindex@10
- history length: 20
- seed: 2020
- valid metric: ndcg@10

| model | recall@10 | giniindex@10 | parameters (total / trained) | epochs | stopped | training | evaluation | peak memory |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| HLLM | **0.0881** | 0.9000 | 22.7M / 22.7M | 3 | limit of 3 epochs | 3m 12s | 0.8s | 1.4 GB |
| SASRec | **0.0881** | **0.7500** | 999 / 1.0M | 3 | early stopping | 2h 5m | 0.8s | 1.4 GB |
| Pop\|ular | 0.0200 | 0.9900 | 4.2k / 0 | 1 | nothing to train | 45s | 10s | 350.0 MB |
| BERT4Rec | – | – | – / – | – | failed | – | – | – |

- Stopped before convergence: HLLM (limit of 3 epochs). No winner can be claimed.
- BERT4Rec failed: embedding_size: 64 is no multiple of n_heads: 3
""".lstrip()  # noqa: E501

CONSOLE = """
data set: ml-100k, 943 users

model   recall@10  giniindex@10  parameters (total / trained)  epochs         stopped  training  evaluation  peak memory
------  ---------  ------------  ----------------------------  ------  --------------  --------  ----------  -----------
HLLM      0.1000*       0.9000*                 22.7M / 22.7M       3  early stopping    3m 12s        0.8s       1.4 GB
SASRec     0.0881        0.9500                 22.7M / 22.7M       3  early stopping    3m 12s        0.8s       1.4 GB
""".lstrip()  # noqa: E501

CSV = """
model,recall@10,giniindex@10,parameters_total,parameters_trained,parameters_inference,epochs,converged,stop_reason,preparation_seconds,training_seconds,evaluation_seconds,scoring_seconds,peak_memory_bytes,error
HLLM,0.0881,0.9,22713216,22713216,22713000,3,False,limit of 3 epochs,61.5,192.4,0.84,0.5,1437000000,
SASRec,0.0881,0.75,999,999960,22713000,3,True,early stopping,61.5,7499,0.84,0.5,1437000000,
Pop|ular,0.02,0.99,4210,0,22713000,1,True,nothing to train,61.5,45.2,9.97,0.5,350000000,
BERT4Rec,,,,,,,,,,,,,,"embedding_size: 64 is
no multiple of n_heads: 3"
""".lstrip()  # noqa: E501


def test_markdown():
    assert to_markdown(ROWS, HEADER) == MARKDOWN


def test_console():
    rows = [row("HLLM", 0.1, 0.9), row("SASRec", 0.0881, 0.95)]
    assert to_console(rows, {"dataset": "ml-100k", "users": 943}) == CONSOLE


def test_csv():
    assert to_csv(ROWS) == CSV


def test_json_keeps_everything_and_is_strict():
    rows = [row("HLLM", np.float64(0.5), float("nan"), epochs=np.int64(3)), ROWS[3]]
    loaded = json.loads(to_json(rows, HEADER), parse_constant=pytest.fail)
    assert loaded["header"] == HEADER
    assert loaded["rows"][0]["test_result"] == {"recall@10": 0.5, "giniindex@10": None}
    assert loaded["rows"][0]["costs"]["epochs"] == 3
    assert loaded["rows"][0]["valid_metric_bigger"] is True
    assert loaded["rows"][1] == ROWS[3]


def test_build_table_has_plain_numbers_and_one_line_per_model():
    table = build_table(ROWS[:2])
    assert list(table["model"]) == ["HLLM", "SASRec"]
    assert list(table["parameters_total"]) == [22_713_216, 999]
    assert "error" not in table.columns
    assert list(build_table(ROWS)["error"])[:3] == [None] * 3


def metric_cells(rows, metric="recall@10"):
    lines = [line.split(" | ") for line in to_markdown(rows, {}).splitlines()]
    return [line[lines[0].index(metric)] for line in lines[2 : 2 + len(rows)]]


def test_no_best_value_among_one_row():
    assert metric_cells([row("HLLM", 0.1, 0.5)]) == ["0.1000"]
    assert metric_cells([row("HLLM", 0.1, 0.5), ROWS[3]]) == ["0.1000", "–"]


@pytest.mark.parametrize(
    "metric, best", [("gini@10", 0), ("averagepopularity@10", 0), ("logloss", 0), ("coverage@10", 1), ("entropy@10", 1)]
)
def test_the_best_value_is_the_smaller_one_of_some(metric, best):
    rows = [row("A", 0.5, 0.5) | {"test_result": {metric: 0.25}}, row("B", 0.5, 0.5) | {"test_result": {metric: 0.5}}]
    cells = metric_cells(rows, metric)
    assert [cell.startswith("**") for cell in cells] == [best == 0, best == 1]


def test_no_best_value_where_all_are_0():
    assert metric_cells([row("A", 0.0, 0.0), row("B", 0, 0)]) == ["0.0000", "0.0000"]
    assert metric_cells([row("A", 0.0, 0.0), row("B", 0, 0)], "giniindex@10") == ["0.0000", "0.0000"]
    assert metric_cells([row("A", 0.0, 0.0), row("B", 0.1, 0.5)], "giniindex@10") == ["**0.0000**", "0.5000"]
    assert metric_cells([row("A", 0.0, 1), row("B", 0.0, 1), row("C", float("nan"), 1)]) == ["0.0000", "0.0000", "–"]


def test_values_that_are_no_number_are_never_the_best():
    assert metric_cells([row("A", float("nan"), 1), row("B", 0.1, 1), row("C", 0.2, 1)]) == [
        "–", "0.1000", "**0.2000**"
    ]  # fmt: skip


def test_a_row_that_failed_has_no_metrics_and_is_never_the_best():
    failed = {**row("C", 0.9, 0.1), "error": "not comparable with A: items differ"}
    rows = [row("A", 0.1, 0.5), row("B", 0.2, 0.6), failed]
    assert metric_cells(rows) == ["0.1000", "**0.2000**", "–"]
    assert metric_cells(rows, "giniindex@10") == ["**0.5000**", "0.6000", "–"]
    assert build_table(rows)["recall@10"].tolist() == [0.1, 0.2, None]


def test_digits_that_decide_are_shown():
    assert metric_cells([row("A", 0.1234567, 1), row("B", 0.1234566, 1)]) == ["**0.1234567**", "0.1234566"]


def test_rows_with_different_metrics_share_the_columns():
    rows = [row("A", 0.1, 0.5), row("B", 0.2, 0.6)]
    rows[1]["test_result"] = {"recall@10": 0.2, "mrr@10": 0.3}
    assert list(build_table(rows).columns)[:4] == ["model", "recall@10", "giniindex@10", "mrr@10"]
    assert metric_cells(rows, "mrr@10") == ["–", "0.3000"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (9.94, "9.9s"), (9.95, "10s"), (59.4, "59s"), (59.6, "1m 0s"), (3599.6, "1h 0m"),
     (None, "–")],
)  # fmt: skip
def test_durations(seconds, text):
    assert metric_cells([row("A", 0.1, 0.5, training_seconds=seconds)], "training") == [text]


@pytest.mark.parametrize(
    ("number", "text"),
    [(999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (2.5e12, "2.5 TB"),
     (7e15, "7000.0 TB"), (None, "– |")],
)  # fmt: skip
def test_memory(number, text):
    line = to_markdown([row("A", 0.1, 0.5, peak_memory_bytes=number)], {}).splitlines()[2]
    assert line.removesuffix(" |").endswith(text.removesuffix(" |"))


# ---- segments ----


def parted(model, *values):
    names = (("history_length", ["0", "1-35"]), ("popularity", ["0", ">= 30"]))
    places = iter(values)
    segments = {
        kind: [
            {"segment": label, "targets": targets, "recall@10": 0.5, "ndcg@10": next(places)}
            for label, targets in zip(labels, (0, 1234), strict=True)
        ]
        for kind, labels in names
    }
    return {**row(model, 0.1, 0.5), "segments": segments}


SEGMENTS = r"""
ndcg@10 by how many interactions the user, and the target item, has in training:

| interactions in training | targets | HLLM | Pop\|ular |
| --- | ---: | ---: | ---: |
| user 0 | 0 | – | – |
| user 1-35 | 1,234 | **0.2000** | 0.1000 |
| item 0 | 0 | – | – |
| item >= 30 | 1,234 | **0.0123** | **0.0123** |
""".lstrip()


def test_segments_stand_below_in_the_metric_that_chose_the_epochs():
    rows = [parted("HLLM", None, 0.2, None, 0.012345), parted("Pop|ular", None, 0.1, None, 0.012301), ROWS[3]]
    text = to_markdown(rows, {"valid_metric": "NDCG@10"})
    assert text.endswith("\n\n" + SEGMENTS) and "| model | recall@10 |" in text
    assert "recall@10 by how many" in to_markdown(rows, {"valid_metric": "GAUC"})
    assert "by how many" not in to_console(rows, {"valid_metric": "NDCG@10"})


LABELLED = """
logloss by how many interactions the user, and the item, has in training:

| interactions in training | rows | DIN | DeepFM |
| --- | ---: | ---: | ---: |
| user 0 | 0 | – | – |
| user >= 1 | 1,234 | **0.3000** | 0.4000 |
| item >= 0 | 1,234 | **0.3000** | 0.4000 |

auc by how many interactions the user, and the item, has in training:

| interactions in training | rows | DIN | DeepFM |
| --- | ---: | ---: | ---: |
| user 0 | 0 | **0.5000** | **0.5000** |
| user >= 1 | 1,234 | **0.5000** | **0.5000** |
| item >= 0 | 1,234 | **0.5000** | **0.5000** |
""".lstrip()


def test_segments_of_labelled_rows_count_rows_and_show_every_metric():
    def scored(model, loss):
        cold, other = (
            {"segment": label, "rows": count, "auc": 0.5, "logloss": value}
            for label, count, value in (("0", 0, None), (">= 1", 1234, loss))
        )
        segments = {"history_length": [cold, other], "popularity": [{**other, "segment": ">= 0"}]}
        return {**row(model, 0.1, 0.5), "segments": segments}

    rows = [scored("DIN", 0.3), scored("DeepFM", 0.4)]
    assert to_markdown(rows, {"valid_metric": "LogLoss"}).endswith("\n\n" + LABELLED)
    assert "\nauc by how many interactions the user, and the item, has" in to_markdown(rows, {"valid_metric": "RMSE"})


def test_no_best_value_in_a_segment_where_all_are_0_to_its_digits():
    rows = [parted("A", 0.0, 0.00004, 0.0, 0.0001), parted("B", 0.0, 0.00001, 0.0, 0.0)]
    text = to_markdown(rows, {"valid_metric": "ndcg@10"})
    for line in ("user 0 | 0", "user 1-35 | 1,234", "item 0 | 0"):
        assert f"| {line} | 0.0000 | 0.0000 |" in text
    assert "| item >= 30 | 1,234 | **0.0001** | 0.0000 |" in text


def test_rows_that_do_not_count_have_no_segments():
    failed = {**parted("Lost", None, 0.9, None, 0.9), "error": "not comparable"}
    text = to_markdown([parted("HLLM", None, 0.2, None, 0.1), failed], {"valid_metric": "ndcg@10"})
    assert "| user 1-35 | 1,234 | 0.2000 |" in text
    assert "by how many" not in to_markdown([failed], {})
