"""An export with the items of today."""

import json

import pytest
import torch
from exports import write_export

from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.serving import Recommender
from recbole_hllm.serving.refresh import Refreshed, refresh
from recbole_hllm.serving.text_encoder import TextEncoder


@pytest.fixture
def export(tmp_path):
    return write_export(tmp_path / "export", texts=True)


@pytest.fixture
def encoded(monkeypatch):
    """Texts that were encoded."""
    texts, encode = [], TextEncoder.encode

    def watched(self, some):
        texts.extend(some)
        return encode(self, some)

    monkeypatch.setattr(TextEncoder, "encode", watched)
    return texts


def items_of(export):
    lines = (export / "items.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["id"]: line["fields"] for line in map(json.loads, lines)}


def write_items(path, items):
    path.write_text("".join(json.dumps({"id": item, "fields": fields}) + "\n" for item, fields in items.items()))
    return path


def test_only_new_texts_are_encoded_and_the_old_export_stays(export, tmp_path, encoded):
    items = items_of(export)
    before = {path: path.read_bytes() for path in export.rglob("*") if path.is_file()}
    today = {item: fields for item, fields in items.items() if item not in ("i3", "i4")}
    today["i1"] = {**items["i1"], "title": "another"}
    today["i2"] = {**items["i2"], "price": "3"}
    today["new"] = {"title": "a new one"}
    done = refresh(export, write_items(tmp_path / "today.jsonl", today), tmp_path / "next", remove=True)
    assert done == Refreshed(new=1, changed=1, same=len(items) - 3, removed=2)
    assert done.in_words() == f"1 new items, 1 with another text, {len(items) - 3} as before; 2 removed"
    old, new = (Recommender.from_pretrained(folder) for folder in (export, tmp_path / "next"))
    assert encoded == [new.text_of({"title": "a new one"}), new.text_of(today["i1"])]
    assert {path: path.read_bytes() for path in before} == before
    number = new.catalogue.number
    wanted = new.encoder.encode([new.text_of(today["i1"]), new.text_of(today["new"])])
    torch.testing.assert_close(new.served.read[[number("i1"), number("new")]], wanted)
    assert torch.equal(new.served.read[2 : len(items) + 1], old.served.read[2:])
    assert new.catalogue.fields[number("i2")]["price"] == "3"
    recommended = {item.id for item in new.recommend(items=["i5"], k=99)}
    assert "new" in recommended and not {"i3", "i4"} & recommended
    assert new.recommend(items=["i3"], k=2), "histories may have removed items"


def write_table(path, header, items, line_end="\n"):
    """Rows of an .item file: what the header names of each item."""
    rows = [
        [{"item_id": item, "price": "7.5", **fields}[name.partition(":")[0]] for name in header]
        for item, fields in items.items()
    ]
    path.write_bytes(line_end.join(["\ufeff" + "\t".join(header), *map("\t".join, rows), ""]).encode())
    return path


@pytest.mark.parametrize(
    "header", [["item_id:token", "price:float", "title:token_seq"], ["title:token_seq", "item_id:token"]]
)
def test_an_item_file_says_the_same_as_lines(export, tmp_path, encoded, header):
    items = {**items_of(export), "new": {"title": "a new one"}}
    items["i1"] = {**items["i1"], "title": "another"}
    table = write_table(tmp_path / "shop.item", header, items, "\r\n")
    known = len(items) - 2
    assert refresh(export, table, tmp_path / "next") == Refreshed(new=1, changed=1, same=known, removed=0)
    assert refresh(export, write_items(tmp_path / "l.jsonl", items), tmp_path / "of_lines") == Refreshed(1, 1, known, 0)
    one, other = (Recommender.from_pretrained(tmp_path / name) for name in ("next", "of_lines"))
    assert one.catalogue.fields == other.catalogue.fields, "the export shows no price"
    assert torch.equal(one.served.read, other.served.read) and len(encoded) == 4


def test_what_an_item_file_does_not_say_of_an_item_stays(export, tmp_path, encoded):
    items = {item: {**fields, "brand": "Acme"} for item, fields in items_of(export).items()}
    refresh(export, write_items(tmp_path / "l.jsonl", items), tmp_path / "with_brand")
    table = write_table(tmp_path / "shop.item", ["item_id:token", "title:token_seq"], items)
    assert refresh(tmp_path / "with_brand", table, tmp_path / "next").same == len(items) and encoded == []
    assert Recommender.from_pretrained(tmp_path / "next").catalogue.fields[1:] == list(items.values())


def test_ids_are_in_the_column_that_had_them_in_training(export, tmp_path):
    manifest = json.loads((export / "recommender.json").read_text())
    (export / "recommender.json").write_text(json.dumps({**manifest, "item_field": "sku"}))
    items = items_of(export)
    table = tmp_path / "shop.item"
    rows = [f"{place}\t{item}\t{fields['title']}" for place, (item, fields) in enumerate(items.items())]
    table.write_text("\n".join(["item_id:token\tsku:token\ttitle:token_seq", *rows]))
    assert refresh(export, table, tmp_path / "next", remove=True) == Refreshed(0, 0, len(items), 0)


def test_blank_items_hold_up_no_others(export, tmp_path, encoded):
    items = {**items_of(export), "new": {"title": "a new one"}, "empty": {"title": ""}, "space": {"title": "&nbsp;"}}
    items["i1"] = {"title": " "}
    done = refresh(export, write_items(tmp_path / "today.jsonl", items), tmp_path / "next", remove=True)
    assert done == Refreshed(new=1, changed=0, same=len(items) - 4, removed=0, blank=3) and len(encoded) == 1
    assert done.in_words().endswith("; 0 removed; 3 without a text, left out or as they were")
    old, new = (Recommender.from_pretrained(folder) for folder in (export, tmp_path / "next"))
    assert new.catalogue.fields[1] == old.catalogue.fields[1] and "empty" not in new.catalogue


def test_a_file_of_other_items_removes_nothing(export, tmp_path):
    table = write_items(tmp_path / "today.jsonl", {"new": {"title": "a new one"}})
    with pytest.raises(DataError, match="the export has none of its ids, and remove would leave none of its items"):
        refresh(export, table, tmp_path / "next", remove=True)
    assert refresh(export, table, tmp_path / "next").new == 1


HEADER = b"item_id:token\ttitle:token_seq\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"", "line 1: a header has a name and a type in each column, and tabs between"),
        (b"item_id:token,title:token_seq\na,b\n", "line 1: a header has a name and a type"),
        (b"item_id\ttitle\na\tb\n", "line 1: a header has a name and a type"),
        (
            b"item_id:token\ttitel:token_seq\na\tb\n",
            "no column 'title', which this export needs; there are item_id, titel",
        ),
        (b"item_id:token\ttitle:token\ttitle:token_seq\n", "line 1: two columns have the same name"),
        (HEADER, "there are no items"),
        (HEADER + b"a\tb\n\na\tc\n", "line 4: id: 'a' is there twice"),
        (HEADER + b"a\tb\tc\n", r"line 2: 3 columns, but the header has 2 \(item_id, title\)"),
        (HEADER + b"a\t\xff\n", "line 2: it is no UTF-8"),
        (HEADER + b"a\t" + b"x" * 2**20, "line 2: it has more than 1,048,576 bytes; one line holds one item"),
        (HEADER + b"\tb\n", "line 2: id: it is empty"),
    ],
)
def test_what_is_wrong_in_an_item_file_is_said(export, tmp_path, lines, message):
    (tmp_path / "shop.item").write_bytes(lines)
    with pytest.raises(DataError, match=message):
        refresh(export, tmp_path / "shop.item", tmp_path / "next")
    assert not (tmp_path / "next").exists()


@pytest.mark.parametrize("name", ["shop.item.gz", "shop.csv", "shop.ITEM"])
def test_a_file_of_another_kind(export, tmp_path, name):
    (tmp_path / name).write_bytes(HEADER + b"a\tb\n")
    with pytest.raises(DataError, match=r"ends in .item or .jsonl; unpack one that is compressed"):
        refresh(export, tmp_path / name, tmp_path / "next")


def test_what_is_not_in_the_file_stays_and_a_removed_item_comes_back(export, tmp_path, encoded):
    items = items_of(export)
    some = write_items(tmp_path / "some.jsonl", {"i1": items["i1"]})
    assert refresh(export, some, tmp_path / "second", remove=True) == Refreshed(0, 0, 1, len(items) - 1)
    all_items = write_items(tmp_path / "all.jsonl", {item: items[item] for item in ("i1", "i2")})
    assert refresh(tmp_path / "second", all_items, tmp_path / "third") == Refreshed(0, 0, 2, 0)
    assert encoded == []
    listed = {item.id for item in Recommender.from_pretrained(tmp_path / "third").recommend(items=["i3"], k=99)}
    assert listed == {"i1", "i2"}


def test_a_model_of_ids_takes_other_fields_and_no_new_items(tmp_path):
    export = write_export(tmp_path / "ids", texts=False)
    today = write_items(tmp_path / "today.jsonl", {"i1": {"title": "another"}})
    assert refresh(export, today, tmp_path / "next") == Refreshed(0, 0, 1, 0)
    assert Recommender.from_pretrained(tmp_path / "next").catalogue.fields[1] == {"title": "another"}
    today = write_items(tmp_path / "today.jsonl", {"new": {"title": "a"}})
    with pytest.raises(ModelError, match="today.jsonl, item 'new': Tiny knows items by id"):
        refresh(export, today, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "there are no items"),
        ('{"id": "a", "fields": {}}\n{"id": "a", "fields": {}}', "line 2: id: 'a' is there twice"),
        ('{"id": "a"}', 'line 1: an item is such as {"id": "7"'),
        ('{"id": "a", "fields": {"title": 3}}', "line 1: fields: title is no text"),
        ('{"id": 1.5, "fields": {}}', "line 1: id: 1.5 is no id"),
        ('{"id": "", "fields": {"title": "a"}}', "line 1: id: it is empty"),
        ("[]", "line 1: an item is such as"),
        ("{", 'line 1: it is no JSON .*; a line is such as {"id": "7", "fields"'),
        ('{"id": "a", "fields": {"brand": "b"}}', "today.jsonl, item 'a': texts: none of the fields"),
    ],
)
def test_what_is_wrong_is_said(export, tmp_path, lines, message):
    (tmp_path / "today.jsonl").write_text(lines)
    with pytest.raises(DataError, match=message):
        refresh(export, tmp_path / "today.jsonl", tmp_path / "next")
    assert not (tmp_path / "next").exists()


def test_no_file_and_a_folder_that_is_not_empty(export, tmp_path):
    with pytest.raises(DataError, match="none.jsonl: there is no such file"):
        refresh(export, tmp_path / "none.jsonl", tmp_path / "next")
    with pytest.raises(ConfigError, match="refresh: .*export is not empty"):
        refresh(export, tmp_path / "none.jsonl", export)
