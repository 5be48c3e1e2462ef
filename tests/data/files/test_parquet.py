"""Parquet tables, one file or parts of a folder, are the same data as atomic files; a wrong part is named."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recbole.utils import FeatureType

from recbole_hllm import create_dataset
from recbole_hllm.data.files import parquet
from recbole_hllm.data.files.formats import find_table, is_atomic, read_columns, read_header, read_table
from recbole_hllm.errors import ConfigError, DataError

IDS = ("user_id", "item_id")


@pytest.fixture
def write(tmp_path):
    """(columns, name) -> path of a Parquet file."""

    def to_file(columns, name="a.inter.parquet", **keys):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **keys)
        return path

    return to_file


def interactions(rows, start=0):
    return {
        "user_id": [f"u{(row * 7) % 5}" for row in range(start, start + rows)],
        "item_id": [f"i{(row * 3) % 11}" for row in range(start, start + rows)],
        "timestamp": [1_600_000_000 + (row * 37) % 50 for row in range(start, start + rows)],
    }


def read(path, ids=IDS):
    kinds = read_header(path, ids=ids)
    return read_columns(path, kinds, "timestamp", ids=ids)


def cells(table, name):
    texts = table.tokens[name].tolist()
    return [texts[number] if number else None for number in table.columns[name]]


# ---- types ----

DAY = datetime.date(2020, 9, 13)
MOMENT = datetime.datetime(2020, 9, 13, 12, 26, 40)


@pytest.mark.parametrize(
    ("column", "kind", "expected"),
    [
        (pa.array(["a", None, ""]), "token", ["a", np.nan, np.nan]),
        (pa.array([b"a", b"b"]), "token", ["a", "b"]),
        (pa.array(["a", None, "b"], pa.string_view()), "token", ["a", np.nan, "b"]),
        (pa.array([b"a", b"b", b"a"], pa.large_binary()), "token", ["a", "b", "a"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "token", ["a", "b", "a"]),
        (pa.array([1, None, 3], pa.int32()), "float", [1.0, np.nan, 3.0]),
        (pa.array([1.5, 2.0], pa.float32()), "float", [1.5, 2.0]),
        (pa.array([Decimal("1.25")]), "float", [1.25]),
        (pa.array([True, False]), "float", [1.0, 0.0]),
        (pa.array([DAY]), "float", [1_599_955_200.0]),
        (pa.array([MOMENT], pa.timestamp("s")), "float", [1_600_000_000.0]),
        (pa.array([1_600_000_000_123], pa.timestamp("ms", "UTC")), "float", [1_600_000_000.123]),
        (pa.array([1_600_000_000_000_500], pa.timestamp("us")), "float", [1_600_000_000.0005]),
        (pa.array([1_600_000_000_000_000_000], pa.timestamp("ns")), "float", [1_600_000_000.0]),
    ],
)
def test_types_of_columns(write, column, kind, expected):
    path = write({"x": column})
    assert read_header(path) == {"x": FeatureType(kind)}
    pd.testing.assert_series_equal(read_table(path, ["x"])["x"], pd.Series(expected, name="x"))
    if kind == "float":
        assert np.array_equal(read_columns(path, read_header(path), "x").columns["x"], expected, equal_nan=True)
    else:
        read_words = cells(read_columns(path, read_header(path), "t"), "x")
        assert read_words == [None if word is np.nan else word for word in expected]


def test_lists_are_sequences(write):
    columns = {"words": [["a", "b"], [], None, ["c"]], "numbers": [[1, 2], None, [3], []]}
    columns["items"] = [[1], [2, 3], [], [7]]
    path = write(columns)
    header = read_header(path, ids=("items",))
    assert [kind.value for kind in header.values()] == ["token_seq", "float_seq", "token_seq"]
    table = read_columns(path, header, "t", ids=("items",))
    assert [cell.tolist() for cell in table.columns["words"]] == [["a", "b"], [], [], ["c"]]
    assert [cell.tolist() for cell in table.columns["numbers"]] == [[1.0, 2.0], [], [3.0], []]
    assert [cell.tolist() for cell in table.columns["items"]] == [["1"], ["2", "3"], [], ["7"]]


def test_types_in_names_and_columns_that_are_none(write, caplog):
    columns = {"item_id:token": [7, 8], "title:token_seq": ["a b", "c"], "x:y": [1, 2], "s": [{"a": 1}, {"a": 2}]}
    path = write(columns)
    header = read_header(path)
    assert {name: kind.value for name, kind in header.items()} == {
        "item_id": "token", "title": "token_seq", "x:y": "float",
    }  # fmt: skip
    assert [cell.tolist() for cell in read_columns(path, header, "t").columns["title"]] == [["a", "b"], ["c"]]
    assert read_table(path, ["item_id"])["item_id"].tolist() == ["7", "8"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([7, 10, None, 7], pa.int64()), pa.array([7, 10, None, 7], pa.uint64()),
        pa.array([7.0, 10.0, None, 7.0]), pa.array([7, 10, None, 7]).dictionary_encode(),
        pa.array([Decimal(7), Decimal(10), None, Decimal(7)]), pa.array(["7", "10", None, "7"]),
        pa.array(["7", "10", "", "7"]),
    ],
    ids=lambda column: str(column.type),
)  # fmt: skip
def test_ids_are_their_decimal_text(write, column):
    path = write({"item_id": column, "timestamp": [1, 2, 3, 4]})
    table = read(path)
    assert table.tokens["item_id"].tolist() == ["[PAD]", "7", "10"]
    assert table.columns["item_id"].tolist() == [1, 2, 0, 1]
    assert read_table(path, ["item_id"], ids=IDS)["item_id"].fillna("-").tolist() == ["7", "10", "-", "7"]


def test_leading_zeros_are_kept_by_texts_alone(write):
    assert cells(read(write({"item_id": ["007", "7"], "timestamp": [1, 2]})), "item_id") == ["007", "7"]


def test_times_stay_whole(write):
    assert read(write({"timestamp": [1, 2]})).columns["timestamp"].dtype == np.int32
    large = read(write({"timestamp": [2**60 + 1, 2]})).columns["timestamp"]
    assert large.dtype == np.int64 and large.tolist() == [2**60 + 1, 2]
    parts = read(write({"timestamp": pa.array([1500, 2000], pa.timestamp("ms"))})).columns["timestamp"]
    assert parts.tolist() == [1.5, 2]
    whole = read(write({"timestamp": pa.array([1000, 2000], pa.timestamp("ms"))})).columns["timestamp"]
    assert whole.dtype == np.int32 and whole.tolist() == [1, 2]


# ---- blocks and parts ----


@pytest.mark.parametrize("dictionary", [True, False])
def test_blocks_and_row_groups_do_not_matter(write, monkeypatch, dictionary):
    monkeypatch.setattr(parquet, "_ROWS", 3)
    columns = interactions(40)
    table = read(write(columns, row_group_size=7, use_dictionary=dictionary))
    for name in IDS:
        codes, uniques = pd.factorize(np.array(columns[name]))
        assert table.columns[name].tolist() == (codes + 1).tolist()
        assert table.tokens[name].tolist() == ["[PAD]", *uniques]
    assert table.columns["timestamp"].tolist() == columns["timestamp"]


@pytest.mark.parametrize("folder", ["a.inter", "a.inter.parquet"])
def test_parts_of_a_folder_in_the_order_of_their_names(write, tmp_path, folder):
    write(interactions(5, 5), f"{folder}/part-2.parquet")
    write(interactions(5, 0), f"{folder}/part-1.parquet")
    write(interactions(0), f"{folder}/part-0.parquet")
    (tmp_path / folder / "_SUCCESS").write_text("")
    (tmp_path / folder / ".part-1.parquet.crc").write_text("x")
    (tmp_path / folder / ".hidden.parquet").write_text("x")
    path = find_table(tmp_path / "a.inter")
    assert path.name == folder and not is_atomic(path)
    table = read(path)
    assert cells(table, "item_id") == interactions(10)["item_id"] and len(read_table(path, ["item_id"])) == 10
    assert table.place(7) == "part-2.parquet, row 3"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"user_id": ["u"], "item_id": ["i"]}, "b.parquet, column timestamp: missing, but int64 in a.parquet"),
        ({**interactions(1), "x": [1]}, "b.parquet, column x: int64, but missing in a.parquet"),
        ({**interactions(1), "timestamp": ["now"]}, "b.parquet, column timestamp: string, but int64 in a.parquet"),
        ({**interactions(1), "user_id": [7]}, "b.parquet, column user_id: int64, but string in a.parquet"),
    ],
)
def test_a_part_with_other_columns_or_types(write, tmp_path, second, message):
    write(interactions(3), "a.inter/a.parquet")
    part = write(second, "a.inter/b.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.inter")
    part.unlink()
    assert len(read(tmp_path / "a.inter")) == 3


def test_parts_may_write_the_same_in_other_ways(write, tmp_path):
    write(interactions(3), "a.inter/a.parquet")
    other = interactions(3)
    table = pa.table({"timestamp": pa.array(other["timestamp"], pa.float64()), "user_id": pa.array([None] * 3),
                      "item_id": pa.array(other["item_id"]).dictionary_encode()})  # fmt: skip
    write(table, "a.inter/b.parquet")
    table = read(tmp_path / "a.inter")
    assert table.columns["timestamp"].dtype == np.int32
    assert table.columns["timestamp"].tolist() == 2 * other["timestamp"]
    assert cells(table, "user_id") == [*other["user_id"], None, None, None]


@pytest.mark.parametrize("length", [0, 3, 100, -5])
@pytest.mark.parametrize("part", ["a.parquet", "b.parquet"])
def test_a_part_that_is_cut_off_is_named(write, tmp_path, part, length):
    write(interactions(300), "a.inter/a.parquet")
    write(interactions(300), "a.inter/b.parquet")
    path = tmp_path / "a.inter" / part
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    with pytest.raises(DataError, match=f"{part} cannot be read as Parquet"):
        read(tmp_path / "a.inter")
    path.write_bytes(whole)
    assert len(read(tmp_path / "a.inter")) == 600


def test_a_part_with_a_damaged_page_is_named(write):
    path = write(interactions(3000), compression="zstd", use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[40:400] = bytes(360)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="a.inter.parquet cannot be read as Parquet"):
        read(path)


def test_nothing_to_read(write, tmp_path):
    (tmp_path / "a.inter").mkdir()
    with pytest.raises(DataError, match=r"a.inter has no \*.parquet in it"):
        read(tmp_path / "a.inter")
    path = write(interactions(0))
    for reading in (read, lambda file: read_table(file, ["item_id"])):
        with pytest.raises(DataError, match="has columns but no rows"):
            reading(path)


def test_values_that_do_not_fit_the_type_in_the_name(write):
    path = write({"timestamp:float": ["noon"]})
    with pytest.raises(DataError, match="a.inter.parquet, column timestamp: string does not fit timestamp:float"):
        read(path)


# ---- whole data sets ----


def content(data):
    tokens = {name: list(texts) for name, texts in data.field2id_token.items()}
    columns = {name: data.inter_feat[name].tolist() for name in data.inter_feat}
    return tokens, columns, data.field2type, data.field2source


@pytest.fixture
def shop(toy_config, write_dataset, tmp_path, random_rows):
    """(**keys) -> the data set toy; and its folder."""
    items = ("item_id:token\tclass:token\tprice:float", [(f"{n}", "ab"[n % 2], n) for n in range(1, 16)])
    rows = [(user[1:], item[1:], time) for user, item, time in random_rows()]
    folder = write_dataset(tmp_path, "toy", rows, items=items)
    return lambda **keys: create_dataset(toy_config(load_col=None, **keys)), folder


@pytest.mark.parametrize("numbers", ["texts", "integers", "mixed"])
def test_a_data_set_of_parquet_is_the_same(shop, numbers):
    """Whether ids are integers or texts, of both tables or of one of them."""
    read_all, folder = shop
    expected = content(read_all())
    for table in ("inter", "item"):
        frame = read_table(folder / f"toy.{table}", list(read_header(folder / f"toy.{table}")))
        if numbers == "integers" or numbers == "mixed" and table == "inter":
            frame = frame.astype({name: int for name in frame if name in IDS})
        (folder / f"toy.{table}").unlink()
        frame.to_parquet(folder / f"toy.{table}.parquet")
    assert content(read_all()) == expected
    assert content(read_all(val_interval={"class": ["a"]}))[1] != expected[1]


def test_missing_times_and_ids_are_named_by_row(shop):
    read_all, folder = shop
    (folder / "toy.inter").unlink()
    path = folder / "toy.inter.parquet"
    pq.write_table(pa.table({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, None]}), path)
    with pytest.raises(DataError, match="toy.inter.parquet, row 2, column timestamp: missing or not finite"):
        read_all()
    pq.write_table(pa.table({"user_id": ["u", "u"], "timestamp": [1, 2]}), path)
    with pytest.raises((ConfigError, DataError), match="no column 'item_id'"):
        read_all()


def test_two_rows_of_an_item_are_named_by_row(shop):
    read_all, folder = shop
    (folder / "toy.item").unlink()
    table = pa.table({"item_id": [1, 2, 1], "class": ["a", "b", "c"]})
    pq.write_table(table, folder / "toy.item.parquet")
    with pytest.raises(DataError, match="toy.item.parquet, row 3: item_id '1' is already in row 1"):
        read_all()


def test_ready_made_histories_of_parquet(write_dataset, toy_config, tmp_path):
    header = "user_id:token\titem_id:token\titem_id_list:token_seq"
    rows = [("1", "3", "1 2"), ("2", "2", "1")]
    keys = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"], "load_col": None}
    for part in ("train", "valid", "test"):
        folder = write_dataset(tmp_path, "toy", rows, header=header, suffix=f"{part}.inter")
    before = create_dataset(toy_config(**keys))
    (folder / "toy.valid.inter").unlink()
    table = pa.table({"user_id": [1, 2], "item_id": [3, 2], "item_id_list": [[1, 2], [1]]})
    pq.write_table(table, folder / "toy.valid.inter.parquet")
    after = create_dataset(toy_config(**keys))
    assert after.field2id_token["item_id"].tolist() == before.field2id_token["item_id"].tolist()
    assert [list(cell) for cell in after.inter_feat["item_id_list"]] == [
        list(cell) for cell in before.inter_feat["item_id_list"]
    ]
