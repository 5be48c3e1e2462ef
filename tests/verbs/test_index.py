"""The verb index."""

import json

import pytest
from small_export import write_export

from recbole_hllm.cli import main

pytest.importorskip("faiss")


@pytest.fixture
def folder(tmp_path):
    return write_export(tmp_path / "export", users=20)


def test_it_prints_what_was_measured_and_keeps_it(folder, capsys):
    assert main(["index", str(folder), "--kind=ivf", "--min_recall=0.98", "--k=10", "--breadth=4"]) == 0
    printed = capsys.readouterr().out
    kept = json.loads((folder / "index.json").read_text())
    assert (kept["kind"], kept["min_recall"], kept["k"], kept["users"], kept["items"]) == ("ivf", 0.98, 10, 20, 60)
    assert kept["recall"] >= 0.98
    assert printed.startswith(
        f"ivf of 60 items: finds {kept['recall']:.4f} of the best 10 (20 users, stored histories;"
    )
    assert main(["index", str(folder)]) == 0
    assert json.loads((folder / "index.json").read_text())["kind"] == "hnsw"


def test_what_is_wrong_is_said_and_nothing_written(folder, capsys):
    cases = {
        "--kind=best": "index: 'best' is not one of exact, flat, ivf, hnsw",
        "--min_recall=2": "min_recall: 2.0 is not above 0",
        "--recall=1": "index: there is no --recall; did you mean 'min_recall'",
    }
    for option, message in cases.items():
        assert main(["index", str(folder), option]) == 2
        assert message in capsys.readouterr().err
    assert main(["index", str(folder.parent)]) == 2
    assert "there is no export in it" in capsys.readouterr().err
    assert not (folder / "index.json").exists()
