"""The report's tables."""

import pytest

from recbole_hllm.report.compared import compare_users
from recbole_hllm.report.content import read_content
from recbole_hllm.report.sections import costs, protocol, results, sections_of, segments, versions


def cells(table, row):
    return {name: cell.text for name, cell in zip(table.columns, table.rows[row], strict=True)}


def test_results_are_those_of_the_table(write_table):
    content = read_content(write_table())
    table = results(content)
    for number, row in enumerate(content.rows):
        shown = cells(table, number)
        assert shown["model"] == row["model"] and shown["stopped"] == "early stopping"
        assert {name: float(shown[name]) for name in row["test_result"]} == row["test_result"]
    best = max(row["test_result"]["ndcg@10"] for row in content.rows)
    column = table.columns.index("ndcg@10")
    assert {row[column].value for row in table.rows if row[column].best} == {best}
    assert "verdict" not in table.columns


def test_less_is_better_in_segments_too(write_table):
    def change(table):
        table["header"]["valid_metric"] = "LogLoss"
        for row, value in zip(table["rows"], (0.3, 0.6, 0.4), strict=True):
            row["test_result"] = {"logloss": value}
            row["segments"] = {"history_length": [{"segment": "0", "rows": 3, "logloss": value}]}

    (table,) = segments(read_content(write_table(change=change)))
    assert [row[1].best for row in table.rows] == [True, False, False]


def test_a_failed_row_says_why(write_table):
    def change(table):
        table["rows"][1]["error"] = "no memory"

    content = read_content(write_table(change=change))
    assert cells(results(content), 1)["stopped"] == "failed" and cells(results(content), 1)["ndcg@10"] == "–"
    assert "SASRec failed: no memory" in sections_of(content, compare_users(content, None, 0))[0].sentences
    assert [row[0].text for row in costs(content).rows] == ["HLLM", "Pop"]


def test_costs_and_fronts(write_table):
    content = read_content(write_table())
    table = costs(content)
    assert cells(table, 0) | {"on the front of": ""} == {
        "model": "HLLM", "preparation": "1.0s", "training": "3m 20s", "training to the best": "1m 40s",
        "FLOPs to the best": "1e+11", "peak memory": "1.0 GB", "one user": "1.50 ms", "users/s": "900",
        "on disk": "5.0 kB", "on the front of": "",
    }  # fmt: skip
    pop = cells(table, 2)["on the front of"]  # the cheapest in everything
    assert pop == "training, FLOPs, one user, memory, parameters"


def test_segments_have_the_best_of_each(write_table):
    content = read_content(write_table())
    user, item = segments(content)
    assert user.title == "ndcg@10 by interactions of the user in training" and "target item" in item.title
    assert user.columns == ("model", "0-9 (20)", ">= 10 (20)")
    values = [row["segments"]["history_length"][0]["ndcg@10"] for row in content.rows]
    assert [row[1].best for row in user.rows] == [value == max(values) for value in values]


def test_segments_of_other_bounds_are_left_out(write_table):
    def change(table):
        table["rows"][1]["segments"]["history_length"][0]["segment"] = "0-5"
        table["rows"][2]["segments"] = {"history_length": None}
        table["rows"][0]["segments"]["history_length"][1]["ndcg@10"] = None

    user, item = segments(read_content(write_table(change=change)))
    assert [row[0].text for row in user.rows] == ["HLLM"] and cells(user, 0)[">= 10 (20)"] == "–"
    assert [row[0].text for row in item.rows] == ["HLLM", "SASRec"]


def test_protocol_and_versions(write_table):
    content = read_content(write_table())
    assert ("split", "LS") in [(row[0].text, row[1].text) for row in protocol(content).rows]
    table = versions(content)
    assert table.columns == ("model", "finished (UTC)", "recbole_hllm", "torch") and len(table.rows) == 3
    assert [cell.text for cell in table.rows[0]] == ["HLLM", "2026-01-02T03:04:05+00:00", "0.1.0", "2.13.0"]


def test_sections_without_anything_are_left_out(write_table):
    def change(table):
        table["header"] = {}
        for row in table["rows"]:
            del row["segments"]

    folder = write_table(change=change)
    for pattern in ("curve.json", "versions.json", "ranks-test.npz"):
        for file in folder.rglob(pattern):
            file.unlink()
    content = read_content(folder)
    sections = sections_of(content, compare_users(content, None, 3))
    assert [one.title for one in sections] == ["Results", "Quality and cost", "User by user"]
    assert sections[2].sentences == ("Users are not compared: the rows keep no ranks that give recall@10.",)


@pytest.mark.parametrize("named", [None, "Pop"])
def test_users_of_the_leading_row_or_the_one_named(write_table, named):
    content = read_content(write_table())
    compared = compare_users(content, named, 0)
    values = {row["model"]: row["test_result"]["ndcg@10"] for row in content.rows}
    assert compared.named == (named or max(values, key=values.get)) and len(compared.wins) == 2
    for one in compared.wins:
        assert one.difference == pytest.approx(values[compared.named] - values[one.other], abs=2e-4)
        assert one.better + one.worse + one.equal == 40
    (table,) = sections_of(content, compared)[4].tables
    assert [cell.text for cell in table.rows[0]][:2] == [compared.wins[0].other, str(compared.wins[0].better)]


def test_a_named_row_without_ranks(write_table):
    folder = write_table()
    (folder / "Pop" / "ranks-test.npz").unlink()
    compared = compare_users(read_content(folder), "Pop", 3)
    assert compared.named is None and compared.wins == []
    assert compared.sentences == ["Users are not compared: Pop keeps no ranks that give ndcg@10."]
