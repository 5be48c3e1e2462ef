"""JSON lines with names that the user gives."""


def test_ids_texts_and_malformed_lines(converted, tmp_path):
    inter = (
        '{"u": 7, "i": "007", "t": 1588687728923, "r": 4}\n[1]\nnothing\n{"u": 7.5, "i": "a", "t": 1588687728923}\n'
        '{"u": "x", "i": "007", "t": null}\n\n{"u": "\\ud83d\\ude00", "i": 7, "t": 1588687728000}\n'
    )
    items = '{"i": "007", "t": ["a", null, "b"]}\n{"i": 7, "t": "\\ud83d"}\n'
    found = converted(
        "jsonl", {"log.jsonl": inter, "goods.jsonl": items}, user="u", item="i", time="t", rating="r", texts="t",
        items=str(tmp_path / "raw" / "goods.jsonl"),
    )  # fmt: skip
    assert found.inter[1:] == ["7\t007\t4\t1588687728.923", "\U0001f600\t7\t\t1588687728"]
    assert found.item[1:] == ["007\ta b", "7\t\ufffd"]
    counts = found.facts["interactions"]
    assert counts["malformed"] == 4
    assert [(line["line"], line["reason"][:40]) for line in counts["lines"]] == [
        (2, "not a record with names but [1]"), (3, "neither JSON (Expecting value: line 1 co"),
        (4, "user_id is empty"), (5, "timestamp is empty"),
    ]  # fmt: skip
