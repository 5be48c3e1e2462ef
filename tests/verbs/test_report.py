"""The verb ``report``."""

import json

import pytest

from recbole_hllm import cli


@pytest.fixture
def folder(tmp_path):
    row = {"test_result": {"ndcg@10": 0.5}, "costs": {}}
    table = {"header": {"dataset": "shop"}, "rows": [{"model": "A", **row}, {"model": "B", **row}]}
    (tmp_path / "table.json").write_text(json.dumps(table))
    return tmp_path


def test_a_report_and_where_it_is(folder, capsys):
    assert cli.main(["report", str(folder), "--to", str(folder / "out"), "--examples=0"]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(folder / "out" / f"report.{kind}") for kind in ("html", "md", "csv", "tex", "json")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "report: name the folder of a table"),
        (["--to=x"], "report: name the folder of a table"),
        (["{}", "--agianst=A"], "there is no --agianst; did you mean 'against'?"),
        (["{}", "--against"], "--against needs a value"),
        (["{}", "--examples=many"], "--examples=many is not a number"),
        (["{}", "--plots=gif"], "plots: 'gif' is not one of"),
        (["{}", "more"], "'more' belongs to no key"),
        (["{}/nothing"], "there is no table in"),
    ],
)
def test_wrong_words(folder, capsys, words, message):
    assert cli.main(["report", *(word.format(folder) for word in words)]) == 2
    assert message in capsys.readouterr().err
