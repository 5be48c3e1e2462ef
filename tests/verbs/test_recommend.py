"""The verb recommend."""

import json

import pytest
from small_export import write_export

from recbole_hllm.cli import main


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"user": "7", "items": ["i1", "x"]}\n{"items": ["i2"], "k": 1}\n')
    return ["recommend", str(write_export(tmp_path / "export")), "--in=in.jsonl", "--out", "out.jsonl"]


def test_it_writes_the_file_and_prints_what_was_counted(words, tmp_path, capsys):
    assert main([*words, "--k=3", "--unknown=skip"]) == 0
    assert capsys.readouterr().out == "2 histories, 4 items recommended; 1 unknown ids were left out\n"
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(line["user"], len(line["items"])) for line in lines] == [("7", 3), ("2", 1)]


def test_what_is_wrong_is_said(words, capsys):
    assert main(words) == 2
    assert "in.jsonl, line 1: items: not in the catalogue: 'x'" in capsys.readouterr().err
    assert main(words[:3]) == 2
    assert "recommend: name a file to read and one to write" in capsys.readouterr().err
    assert main([*words, "--unkown=skip"]) == 2
    assert "there is no --unkown; did you mean 'unknown'" in capsys.readouterr().err
