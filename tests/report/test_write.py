"""A report of a table, made from its folder."""

import csv
import json
import re

import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.report import write_report
from recbole_hllm.tables.side_by_side import compare


def read(folder, name):
    return (folder / name).read_text(encoding="utf-8")


def test_every_format_has_the_numbers_of_the_table(write_table):
    folder = write_table()
    written = write_report(folder, examples=0)
    assert [path.name for path in written] == [f"report.{kind}" for kind in ("html", "md", "csv", "tex", "json")]
    table = json.loads(read(folder, "table.json"))
    lines = {line["model"]: line for line in csv.DictReader(read(folder, "report.csv").splitlines())}
    numbers = json.loads(read(folder, "report.json"))
    assert numbers["rows"] == table["rows"] and numbers["header"] == table["header"]
    for row in table["rows"]:
        assert {name: float(lines[row["model"]][name]) for name in row["test_result"]} == row["test_result"]
        assert float(lines[row["model"]]["user_latency_ms"]) == row["costs"]["user_latency_ms"]
        for text in (read(folder, "report.md"), read(folder, "report.tex"), read(folder, "report.html")):
            assert f"{row['test_result']['ndcg@10']:.4f}" in text
    assert numbers["pareto_fronts"]["flops_to_best"] and len(numbers["users"]) == 2 and numbers["examples"] == []
    assert len(numbers["curves"]["HLLM"]) == 4 and "secret" not in read(folder, "report.html")


def test_a_report_elsewhere_and_again(write_table, tmp_path):
    folder = write_table()
    before = sorted(path.name for path in folder.iterdir())
    for _ in range(2):
        written = write_report(folder, to=tmp_path / "new" / "place", examples=0)
    assert {path.parent for path in written} == {tmp_path / "new" / "place"}
    assert sorted(path.name for path in folder.iterdir()) == before


def test_without_the_runs_the_table_is_reported_all_the_same(write_table, tmp_path):
    folder = write_table()
    (tmp_path / "alone").mkdir()
    (folder / "table.json").rename(tmp_path / "alone" / "table.json")
    write_report(tmp_path / "alone")
    numbers = json.loads(read(tmp_path / "alone", "report.json"))
    assert numbers["curves"] == {} and numbers["users"] == [] and numbers["keys"] is None
    assert "Users are not compared" in read(tmp_path / "alone", "report.md")


def test_data_that_are_not_there_are_said(write_table):
    folder = write_table()
    write_report(folder)
    assert "Examples need the data set:" in read(folder, "report.md")
    assert json.loads(read(folder, "report.json"))["examples"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"against": "SASrec"}, "against: 'SASrec' is not a row of this table .*did you mean 'SASRec'"),
        ({"examples": -1}, "examples: -1"),
        ({"plots": ["gif"]}, "plots: 'gif'"),
    ],
)
def test_bad_input_writes_nothing(write_table, arguments, message):
    folder = write_table()
    with pytest.raises(ConfigError, match=message):
        write_report(folder, **arguments)
    assert not list(folder.glob("report.*"))


def test_a_folder_that_cannot_be_made(write_table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make"):
        write_report(write_table(), to=tmp_path / "file" / "x", examples=0)


def test_a_table_of_real_runs_with_examples(settings_of, tmp_path, started):
    keys = {**settings_of("SASRec"), "sanity_rows": ["Markov"], "metric_decimal_place": 6}
    compare(["SASRec", "GRU4Rec"], config_dict=keys, run_dir=tmp_path / "t")
    write_report(tmp_path / "t", against="Markov", examples=2)
    numbers = json.loads(read(tmp_path / "t", "report.json"))
    assert set(numbers["curves"]) == set(numbers["versions"]) == {"SASRec", "GRU4Rec", "Markov"}
    assert {one["other"] for one in numbers["users"]} == {"SASRec", "GRU4Rec"}
    assert 0 < len(numbers["examples"]) <= 4
    for one in numbers["examples"]:
        (own, theirs), (named, other) = one["ranks"].values(), one["lists"].values()
        assert (own < theirs) == one["won"] and len(named) == len(other) == 5
        ((target,),) = [one["targets"]]
        colours = ("red", "blue", "green", "grey")
        assert target in {f"{item} {colours[item % 4]}" for item in range(12)}
        for rank, listed in ((own, named), (theirs, other)):  # the list shows what the rank says
            assert (listed.index(target) + 1 if target in listed else None) == (rank if rank <= 5 else None)
        assert 0 < len(one["history"]) <= 5 and target in read(tmp_path / "t", "report.html")


@pytest.fixture
def seeded(settings_of, tmp_path, started):
    """The folder of a table with two seeds, tested against a row."""
    keys = {**settings_of("SASRec"), "seeds": [3, 1], "compare_to": "Pop", "sanity_rows": ["Pop"], "epochs": 40}
    keys |= {"stopping_step": 1, "learning_rate": 0.02, "mask_history": "both", "valid_metric": "MRR@3-masked"}
    compare(["SASRec", "BPR"], config_dict=keys, run_dir=tmp_path / "t")
    return tmp_path / "t"


def test_a_table_with_seeds_and_tests_says_what_the_table_says(seeded):
    write_report(seeded, examples=0)
    rows = json.loads(read(seeded, "table.json"))["rows"]
    page, table = read(seeded, "report.md").replace("\\", ""), read(seeded, "table.md")
    for row in rows[:2]:
        test, with_deviations = row["tests"]["mrr@3-masked"], re.findall(r"\d\.\d+ ± \d\.\d+", table)
        assert len(with_deviations) >= 18 and all(value in page for value in with_deviations)
        assert f"{test['difference']:+.4f} {test['verdict']}" in page
        line = next(line for line in page.splitlines() if line.startswith(f"| {row['model']} |"))
        assert test["verdict"] in line
    for sentence in ("standard errors over", "Against Pop, user by user", "A row with ± is the mean of 2 runs"):
        assert next(line for line in table.splitlines() if sentence in line) in page
    lines = {line["model"]: line for line in csv.DictReader(read(seeded, "report.csv").splitlines())}
    for row in rows[:2]:
        assert float(lines[row["model"]]["mrr@3 sd"]) == row["deviations"]["mrr@3"]
        assert lines[row["model"]]["mrr@3 verdict"] == row["tests"]["mrr@3"]["verdict"]
    assert "Tests against Pop" in read(seeded, "report.html") and "(Holm)" in read(seeded, "report.tex")


def test_runs_of_seeds_that_the_table_no_longer_has_do_not_count(seeded):
    compare([], config_dict={"resume": True, "seeds": [3]}, run_dir=seeded)
    write_report(seeded, against="SASRec", examples=0)
    numbers, table = json.loads(read(seeded, "report.json")), json.loads(read(seeded, "table.json"))
    values = {row["model"]: row["test_result"]["mrr@3-masked"] for row in table["rows"]}
    for one in numbers["users"]:
        assert one["difference"] == pytest.approx(values["SASRec"] - values[one["other"]], abs=1e-4)


def test_weights_that_were_not_kept_leave_the_lists_out(settings_of, tmp_path, started):
    keys = {**settings_of("SASRec"), "sanity_rows": False}
    compare(["SASRec", "GRU4Rec"], config_dict=keys, run_dir=tmp_path / "t")
    for file in (tmp_path / "t").rglob("best/*"):
        file.unlink()
    write_report(tmp_path / "t", examples=1)
    numbers = json.loads(read(tmp_path / "t", "report.json"))
    assert numbers["examples"] and all(one["lists"] == {} for one in numbers["examples"])
    assert "Lists of SASRec are not shown:" in read(tmp_path / "t", "report.md")
