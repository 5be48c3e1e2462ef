"""A table's folder, read back."""

import json

import pytest

from recbole_hllm.errors import ConfigError, Damaged
from recbole_hllm.report.content import read_content


def test_rows_runs_and_keys_without_places_of_the_machine(write_table):
    content = read_content(write_table())
    assert [row["model"] for row in content.rows] == ["HLLM", "SASRec", "Pop"] and content.metric == "ndcg@10"
    assert content.runs["HLLM"].versions["torch"] == "2.13.0" and len(content.runs["HLLM"].curve) == 4
    assert "learning_rate: 0.01" in content.keys and "secret" not in content.keys


def test_missing_pieces_are_no_error(write_table):
    folder = write_table()
    for file in (*folder.rglob("curve.json"), *folder.rglob("versions.json"), folder / "keys.yaml"):
        file.unlink()
    content = read_content(folder)
    assert content.keys is None and content.runs["SASRec"].curve == [] and content.runs["SASRec"].versions == {}


def test_the_runs_of_several_seeds_and_of_a_trial(write_table):
    def change(table):
        table["rows"][0]["seeds"] = [10, 2]
        table["rows"][1]["trial"] = 2

    folder = write_table(change=change)
    for name, parts in (("HLLM", ("seed-10", "seed-2", "seed-3")), ("SASRec", ("trial-2",))):
        (folder / name).rename(folder / "moved")
        for part in parts:
            (folder / name / part).mkdir(parents=True)
            for file in (folder / "moved").iterdir():
                (folder / name / part / file.name).write_bytes(file.read_bytes())
        (folder / "moved").rename(folder / f"{name}-moved")
    content = read_content(folder)
    assert [run.name for run in content.runs["HLLM"].folders] == ["seed-10", "seed-2"]  # seed 3 is of an earlier table
    assert [run.name for run in content.runs["SASRec"].folders] == ["trial-2"]


def test_a_name_that_leads_out_of_the_folder_is_no_run(write_table):
    def change(table):
        table["rows"][2]["model"] = "../table/Pop"

    assert read_content(write_table(change=change)).runs["../table/Pop"].folders == []


def test_a_metric_that_no_row_has_gives_way_to_the_first(write_table):
    assert read_content(write_table(header={"valid_metric": "MRR@10"})).metric == "recall@10"


def test_a_table_of_failures_has_no_metric(write_table):
    def change(table):
        table["rows"] = [{"model": "HLLM", "error": "no memory"}]

    assert read_content(write_table(change=change)).metric is None


@pytest.mark.parametrize("text", ["[]", "{}", '{"rows": []}', '{"rows": [{"a": 1}]}', '{"rows": [1]}'])
def test_what_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ConfigError, match=r"table\.json is not a table"):
        read_content(tmp_path)


def test_no_table_and_a_damaged_one(tmp_path):
    with pytest.raises(ConfigError, match="there is no table in"):
        read_content(tmp_path)
    (tmp_path / "table.json").write_text(json.dumps({"rows": []})[:-3])
    with pytest.raises(Damaged, match=r"table\.json"):
        read_content(tmp_path)
