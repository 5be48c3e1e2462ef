import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.tables.ratios import ratio_lines
from recbole_hllm.tables.side_by_side import compare
from recbole_hllm.tables.table import to_markdown


def row(model, recall, trained, to_recommend, training, scoring):
    costs = {
        "parameters_trained": trained, "parameters_inference": to_recommend, "training_seconds": training,
        "scoring_seconds": scoring, "preparation_seconds": 4 * scoring,
    }  # fmt: skip
    return {"model": model, "test_result": {"recall@10": recall, "ndcg@10": 0.0}, "costs": costs}


ROWS = [row("big", 0.10, 1000, 4000, 60.0, 2.0), row("small", 0.11, 130, 1000, 9.0, 0.25)]


def test_metrics_in_percent_and_costs_with_their_multiples():
    heading, table = ratio_lines(ROWS, "big")
    assert heading[0].startswith("Relative to big")
    assert table[2] == "| big | 0.1000 | 0.0000 | 1.0k | 4.0k | 8.0s | 1m 0s | 2.0s |"
    assert table[3] == (
        "| small | +10.0 % | – | 130 (0.13 x) | 1.0k (0.25 x) | 1.0s (0.125 x) | 9.0s (0.15 x) | 0.2s (0.125 x) |"
    )
    assert len(table) == 4 and all(line.count("|") == table[0].count("|") for line in table)
    counted = row("counts", 0.1, 0, 6, 0.05, 0.25)
    small = ratio_lines([ROWS[0], counted], "big")[1][3]
    assert "| 0 (< 0.001 x) | 6 (0.0015 x) | 1.0s (0.125 x) |" in small and "s (< 0.001 x) |" in small
    turned = ratio_lines(ROWS, "small")[1]
    assert turned[2].startswith("| small | 0.1100 |"), "the reference comes first, wherever its row is"
    assert turned[3] == "| big | -9.1 % | – | 1.0k (7.69 x) | 4.0k (4 x) | 8.0s (8 x) | 1m 0s (6.67 x) | 2.0s (8 x) |"


def test_rows_without_a_result_have_no_ratios():
    failed = {"model": "broken", "error": "why"}
    assert len(ratio_lines([*ROWS, failed], "big")[1]) == 4
    assert ratio_lines([failed, ROWS[0]], "broken") == [] and ratio_lines(ROWS[:1], "big") == []
    without = {**ROWS[1], "costs": {**ROWS[1]["costs"], "scoring_seconds": None}}
    assert ratio_lines([ROWS[0], without], "big")[1][3].endswith("| 9.0s (0.15 x) | – |")


def test_they_stand_behind_the_table():
    text = to_markdown(ROWS, {"dataset": "toy"}, *ratio_lines(ROWS, "big"))
    assert text.index("| small | **0.1100**") < text.index("Relative to big") < text.index("+10.0 %")


def test_a_row_that_is_not_there(settings_of, tmp_path):
    keys = {**settings_of("Pop"), "ratios_to": "SASRec", "sanity_rows": []}
    with pytest.raises(ConfigError, match="ratios_to: 'SASRec' is not a row of this table .Pop, Markov."):
        compare(["Pop", "Markov"], config_dict=keys, run_dir=tmp_path / "table")
    assert not (tmp_path / "table").exists()
