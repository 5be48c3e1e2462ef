"""Rows of an item file are found once and read from it when they are asked for."""

import os
import pickle
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.texts import item_rows
from recbole_hllm.data.texts.item_texts import read_item_texts
from recbole_hllm.errors import DataError

HEADER = "item_id:token\ttitle:token_seq\ttag:token\n"
IDS = ["[PAD]", "a", "b", "c"]
CELL = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), max_size=8)


@given(
    rows=st.dictionaries(st.sampled_from("abcxyz"), st.tuples(CELL, CELL), min_size=1),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)
def test_rows_are_those_of_the_file(tmp_path_factory, rows, end, encoding):
    path = tmp_path_factory.mktemp("data") / "toy.item"
    lines = [HEADER.strip(), *("\t".join([item, *cells]) for item, cells in rows.items())]
    path.write_bytes(end.join(lines).encode(encoding))
    cache = path.parent / "cache"
    fresh = read_item_texts(path, ["tag", "title"], IDS, encoding=encoding)
    first, again = (read_item_texts(path, ["tag", "title"], IDS, encoding=encoding, cache=cache) for _ in range(2))
    for texts in (fresh, first, again):
        assert list(texts.fields) == [("", "")] + [rows.get(item, ("", ""))[::-1] for item in IDS[1:]]
        assert texts.fields[1:3] == list(texts.fields)[1:3] and texts.fields[-1] == list(texts.fields)[3]
        assert texts.has_row.tolist() == [False] + [item in rows for item in IDS[1:]]
    assert first.content == again.content and fresh.content is None


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "toy.item"
    path.write_text(HEADER + "a\tA\tx\nb\tB\ty\n")
    return path, read_item_texts(path, ["title"], IDS)


def test_an_index_beyond_the_items_is_refused(texts):
    with pytest.raises(IndexError):
        texts[1].fields[4]


@pytest.mark.parametrize("opened", [False, True])
def test_a_file_that_is_changed_meanwhile_is_told(texts, opened):
    path, read = texts
    if opened:
        assert read.fields[1] == ("A",)
    path.write_text(HEADER + "b\tB\ty\na\tAA\tx\n")
    with pytest.raises(DataError, match="toy.item was changed while its texts were read; start again"):
        read.fields[2]


def test_a_file_that_is_replaced_is_read_as_it_was_opened(texts, tmp_path):
    path, read = texts
    assert read.fields[1] == ("A",)
    other = tmp_path / "other"
    other.write_text(HEADER + "a\tanother text\tx\n")
    os.replace(other, path)
    assert read.fields[2] == ("B",)


def test_fields_can_be_pickled(texts):
    read = texts[1]
    assert read.fields[1] == ("A",)
    assert list(pickle.loads(pickle.dumps(read.fields))) == list(read.fields)


def test_texts_of_other_formats_are_held_as_bytes_and_read_once(tmp_path, monkeypatch):
    path = tmp_path / "toy.item"
    path.write_bytes((HEADER + "a\tA 猫\tx\nb\t\ty\n").encode("utf-16"))
    texts = read_item_texts(path, ["title"], IDS, encoding="utf-16")
    assert texts.fields[1] == ("A 猫",)
    monkeypatch.setattr(item_rows, "read_table", lambda *args: pytest.fail("read again"))
    assert texts.fields[2] == ("",) and texts.fields[3] == ("",)


def test_places_in_the_cache_are_of_one_content_of_the_file(texts, tmp_path):
    path, cache = texts[0], tmp_path / "cache"
    read_item_texts(path, ["title"], IDS, cache=cache)
    (entry,) = cache.iterdir()
    assert np.load(entry / "places.npy").tolist() == [-1, len(HEADER), len(HEADER) + 6, -1]
    path.write_text(HEADER + "a\tA A\tx\nb\tB\ty\n")
    assert read_item_texts(path, ["title"], IDS, cache=cache).fields[2] == ("B",)
    assert len(list(cache.iterdir())) == 2
    (entry / "places.npy").write_bytes(b"x")
    path.write_text(HEADER + "a\tA\tx\nb\tB\ty\n")
    assert read_item_texts(path, ["title"], IDS, cache=cache).fields[2] == ("B",)


def test_what_other_programs_leave_in_a_folder_of_parts_is_none_of_its_texts(tmp_path):
    folder = tmp_path / "toy.item.parquet"
    folder.mkdir()
    pq.write_table(pa.table({"item_id": ["a", "b"], "title": ["one", "two"]}), folder / "part-0.parquet")
    before = read_item_texts(folder, ["title"], ["[PAD]", "b"], cache=tmp_path / "cache")
    for name in ("_SUCCESS", ".part-0.parquet.crc"):
        (folder / name).write_bytes(b"x")
    after = read_item_texts(folder, ["title"], ["[PAD]", "b"], cache=tmp_path / "cache")
    assert after.content == before.content and before.fields[1] == ("two",)  # read after the folder has changed


def test_numbers_of_other_formats_are_written_as_people_do(tmp_path):
    items = {
        "item_id": [7, 8], "price": [12.99, 5.0], "year": [1999, None], "tags": [["a", "b"], []],
        "code": [2**60 + 1, 3], "new": [True, False], "since": [date(2020, 1, 1), None], "size": [float("nan"), 0.5],
    }  # fmt: skip
    pq.write_table(pa.table(items), tmp_path / "toy.item.parquet")
    read = read_item_texts(tmp_path / "toy.item.parquet", list(items)[1:], ["[PAD]", "7", "8"])
    assert read.fields[1] == ("12.99", "1999", "a b", "1152921504606846977", "true", "2020-01-01", "")
    assert read.fields[2] == ("5", "", "", "3", "false", "", "0.5")


def test_an_id_is_a_whole_number(tmp_path):
    pq.write_table(pa.table({"item_id": [7.5, 8.0], "title": ["a", "b"]}), tmp_path / "toy.item.parquet")
    with pytest.raises(DataError, match="column item_id: double does not fit item_id:token"):
        read_item_texts(tmp_path / "toy.item.parquet", ["title"], ["[PAD]", "8"])
