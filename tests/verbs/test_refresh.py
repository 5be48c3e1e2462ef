"""The verb refresh."""

import json

from exports import write_export

from recbole_hllm.cli import main


def test_it_writes_a_new_export_and_prints_what_was_done(tmp_path, capsys):
    export = write_export(tmp_path / "export", texts=True)
    count = len((export / "items.jsonl").read_text().splitlines())
    lines = (export / "items.jsonl").read_text().splitlines()[:2]
    (tmp_path / "today.jsonl").write_text("\n".join([*lines, json.dumps({"id": "n", "fields": {"title": "new"}})]))
    words = ["refresh", str(export), str(tmp_path / "today.jsonl"), str(tmp_path / "next"), "--remove"]
    assert main(words) == 0
    assert capsys.readouterr().out == f"1 new items, 0 with another text, 2 as before; {count - 2} removed\n"
    assert main(words) == 2
    assert "next is not empty; name a new folder" in capsys.readouterr().err
    assert main(words[:3]) == 2
    assert "refresh: write recbole-hllm refresh FOLDER ITEMS NEW_FOLDER" in capsys.readouterr().err
