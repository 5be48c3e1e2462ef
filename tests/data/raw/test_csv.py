"""CSV files with columns that the user names."""

import csv as csv_module
import gzip
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.data.files.reader import read_table
from recbole_hllm.data.raw.conversion import convert


def test_names_types_and_separator(converted, tmp_path):
    files = {
        "log.tsv": "who\twhat\twhen\tstars\tclick\nu\tB1\t2020-01-01\t3\tyes\n",
        "goods.tsv": "asin\tname\tmade\nB1\tA b\tX\n",
    }
    found = converted(
        "csv", files, sources=[tmp_path / "raw" / "log.tsv"], user="who", item="what", time="when", rating="stars",
        keep="click:token", items=str(tmp_path / "raw" / "goods.tsv"), items_id="asin", texts="name,made:token",
        separator="tab",
    )  # fmt: skip
    assert found.inter == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\tclick:token",
        "u\tB1\t3\t1577836800\tyes",
    ]
    assert found.item == ["item_id:token\tname:token_seq\tmade:token", "B1\tA b\tX"]


def test_files_without_a_header_and_several_parts(converted):
    files = {"a.csv": "u,i,1000000000\n", "b.csv.gz": gzip.compress(b"v,i,1000000001\n"), "README.md": "x"}
    found = converted("csv", files, columns="user_id,item_id,timestamp")
    assert found.inter[1:] == ["u\ti\t1000000000", "v\ti\t1000000001"]


ID = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0"), min_size=1, max_size=8)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
ROWS = st.lists(st.tuples(ID, ID, st.integers(10**8, 4 * 10**9), TEXT), min_size=1, max_size=10)


@settings(max_examples=30)
@given(ROWS)
def test_any_ids_and_texts_come_back_from_the_reader(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    items = {item: text for _, item, _, text in reversed(rows)}
    for name, header, cells in (
        ("inter", ("user_id", "item_id", "timestamp"), [row[:3] for row in rows]),
        ("items", ("item_id", "text"), items.items()),
    ):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as stream:
            csv_module.writer(stream).writerows([header, *cells])
    convert("csv", [str(folder / "inter.csv")], to=str(folder / "shop"), items=str(folder / "items.csv"), texts="text")
    inter = read_table(folder / "shop" / "shop.inter", ["user_id", "item_id", "timestamp"])
    assert list(inter.itertuples(index=False, name=None)) == [row[:3] for row in rows]
    found = read_table(folder / "shop" / "shop.item", ["item_id", "text"]).fillna("")
    expected = {item: re.sub("[ \t\r\n\0]+", " ", text) for item, text in items.items()}
    assert dict(zip(found["item_id"], found["text"], strict=True)) == {
        item: text if text != " " else "" for item, text in expected.items()
    }


def test_quotation_marks_are_characters_of_an_unquoted_file(converted, tmp_path):
    files = {
        "log.tsv": 'user_id\titem_id\ttimestamp\nu\t"B1\t1000000000\nv\tB"2"\t1000000001\n',
        "goods.tsv": 'item_id\ttitle\n"B1\t"Tom" and\nB"2"\t"\n',
    }
    found = converted(
        "csv", files, sources=[tmp_path / "raw" / "log.tsv"], items=str(tmp_path / "raw" / "goods.tsv"), texts="title",
        separator="tab", unquoted=True,
    )  # fmt: skip
    assert found.inter[1:] == ['u\t"B1\t1000000000', 'v\tB"2"\t1000000001']
    assert found.item[1:] == ['"B1\t"Tom" and', 'B"2"\t"']
