"""Parquet files and folders of parts."""

from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbole_hllm.errors import DataError


@pytest.fixture
def parts(tmp_path):
    """Writes the parts of a folder."""

    def write(*tables, names="abcdef"):
        (tmp_path / "raw").mkdir(exist_ok=True)
        for name, table in zip(names, tables, strict=False):
            pq.write_table(pa.table(table), tmp_path / "raw" / f"part-{name}.parquet")
        return tmp_path / "raw"

    return write


ROWS = {
    "user_id": [1, 2],
    "item_id": ["01", "x"],
    "timestamp": [datetime(2020, 1, 1), datetime(2020, 1, 1, 0, 0, 0, 250000)],
}


def test_parts_and_times(converted, parts):
    parts(ROWS, {name: values[:1] for name, values in ROWS.items()})
    found = converted("parquet", {"_SUCCESS": ""})
    assert found.inter[1:] == ["1\t01\t1577836800", "2\tx\t1577836800.25", "1\t01\t1577836800"]
    assert len(found.facts["files"]) == 2


def test_dates_categories_and_lists(converted, parts, tmp_path):
    parts({**ROWS, "timestamp": [date(2020, 1, 1)] * 2, "item_id": pa.array(ROWS["item_id"]).dictionary_encode()})
    pq.write_table(pa.table({"item_id": ["01"], "tags": [["a", "b"]], "n": [3.5]}), tmp_path / "goods.parquet")
    found = converted("parquet", {}, items=str(tmp_path / "goods.parquet"), texts="tags,n:float")
    assert found.inter[1:] == ["1\t01\t1577836800", "2\tx\t1577836800"]
    assert found.item[1:] == ["01\ta b\t3.5"]


def test_numbers_that_are_missing_or_bools(converted, parts):
    parts({**ROWS, "rating": [float("nan"), 4.5]}, {**ROWS, "rating": [True, False]})
    found = converted("parquet", {}, rating="rating")
    assert [line.split("\t")[2] for line in found.inter[1:]] == ["", "4.5", "1", "0"]


def test_nanoseconds_become_microseconds(converted, parts):
    parts({**ROWS, "timestamp": pa.array([1_577_836_800_123_456_789, 5], pa.timestamp("ns"))})
    assert [line.split("\t")[2] for line in converted("parquet", {}).inter[1:]] == ["1577836800.123456", "0"]


def test_texts_as_views(converted, parts):
    parts({**ROWS, "item_id": pa.array(ROWS["item_id"], pa.string_view())})
    assert [line.split("\t")[1] for line in converted("parquet", {}).inter[1:]] == ROWS["item_id"]


def test_a_missing_id_has_its_row(converted, parts):
    parts({**ROWS, "item_id": ["01", None]})
    (line,) = converted("parquet", {}).facts["interactions"]["lines"]
    assert (line["line"], line["reason"]) == (2, "item_id is empty")


@pytest.mark.parametrize(
    "second, match",
    [
        (
            {"user_id": [1], "item": ["01"], "timestamp": [1]},
            r"part-b.parquet: no column 'item_id' \(there are: user_id, item",
        ),
        (
            {**ROWS, "user_id": [1.0, None]},
            r"part-b.parquet: column 'user_id' is double, but ids must be texts or whole",
        ),
    ],
)
def test_a_part_that_does_not_fit(converted, parts, second, match):
    parts(ROWS, second)
    with pytest.raises(DataError, match=match):
        converted("parquet", {})


def test_a_truncated_file(converted, parts):
    path = parts(ROWS) / "part-a.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="part-a.parquet: cannot be read"):
        converted("parquet", {})


def test_what_is_missing_in_a_list_is_left_out(converted, parts, tmp_path):
    items = {"item_id": ["01", "x", "y"], "tags": [["red", None, "blue"], None, [None]]}
    parts({**ROWS, "item_id": ["01", "x"]})
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    found = converted("parquet", {"_SUCCESS": ""}, items=str(tmp_path / "items.parquet"), texts="tags", all_items=True)
    assert found.item[1:] == ["01\tred blue", "x\t", "y\t"]
