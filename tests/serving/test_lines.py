"""Lines of a file of histories."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.errors import DataError
from recbole_hllm.serving import lines as module
from recbole_hllm.serving.lines import Line, Lines, Place, request_of
from recbole_hllm.serving.requests import Request


def read(path, place=Place(), at_once=2):  # noqa: B008
    return list(Lines(path).batches(place, at_once))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "histories.jsonl"


def test_lines_with_their_numbers_and_where_the_next_batch_begins(path):
    path.write_bytes(b'\xef\xbb\xbf{"user": 1}\n\n{"user": 2}\r\n{"user": "\xc3\xa4"}')
    batches = read(path)
    assert batches[0] == ([Line(1, {"user": 1})], Place(2, 16))
    assert batches[1] == ([Line(3, {"user": 2}), Line(4, {"user": "ä"})], Place(4, path.stat().st_size))
    assert read(path, batches[0][1]) == batches[1:]
    assert read(path, batches[1][1]) == []
    assert Lines(path).total == Lines(path).done(batches[1][1]) == path.stat().st_size


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", r"histories.jsonl, line 2: it is no JSON \(.*\); a line is such as"),
        (b"\xff", "line 2: it is no JSON"),
        (b"[" * 100_000, "line 2: it is no JSON"),
        (b"9" * 10_000, "line 2: it is no JSON"),
        (b"null", "line 2: it is null"),
        (b'{"user": "' + b"a" * 2**20, "line 2: it has more than 1,048,576 bytes"),
    ],
)
def test_a_line_that_is_wrong_is_named(path, line, message):
    path.write_bytes(b'{"user": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_missing_file(path):
    with pytest.raises(DataError, match="histories.jsonl: there is no such file"):
        Lines(path)


# ---- Parquet ----


def write_rows(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def test_rows_from_any_place_on_in_batches_of_the_same_rows(tmp_path):
    rows = [{"user": f"u{row}", "items": ["a"] * row} for row in range(150)]
    path = write_rows(tmp_path / "in.parquet", rows, row_group_size=40)
    batches = read(path, at_once=7)
    assert [line for lines, _ in batches for line in lines] == [Line(row + 1, rows[row]) for row in range(150)]
    assert Lines(path).total == 150 == Lines(path).done(batches[-1][1])
    for place in (3, 5, 6, 21):
        assert read(path, batches[place][1], at_once=7) == batches[place + 1 :]


def test_columns_that_no_line_has(tmp_path):
    path = write_rows(tmp_path / "in.parquet", [{"user": "a", "item": ["b"]}])
    with pytest.raises(DataError, match=r"in.parquet: a line has no 'item' .*did you mean 'items'"):
        Lines(path)


def test_damaged_parquet(tmp_path):
    path = tmp_path / "in.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="in.parquet is no Parquet file, or damaged"):
        Lines(path)
    write_rows(path, [{"user": "u" * 50, "items": [str(row)]} for row in range(99)], compression="none")
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    with pytest.raises(DataError, match="in.parquet, row 1: the file is damaged"):
        read(path)


def test_a_row_group_that_would_not_fit_is_refused(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "in.parquet", [{"items": ["a"] * 1000}])
    assert path.stat().st_size < 1000
    monkeypatch.setattr(module, "_MOST_GROUP_VALUES", 999)
    with pytest.raises(DataError, match="row group 0 has a column of more than .* 999 values; write smaller"):
        Lines(path)
    monkeypatch.setattr(module, "_MOST_GROUP_VALUES", 1000)
    Lines(path)
    monkeypatch.setattr(module, "_MOST_GROUP_BYTES", 20)
    with pytest.raises(DataError, match="row group 0 has a column of more than 20 bytes"):
        Lines(path)


# ---- one line ----


def test_what_a_line_may_hold():
    content = {
        "id": 3, "user": "u", "items": [1, "b"], "texts": ["a text", {"title": "b", "brand": None}],
        "times": [1, 2.5, 3, 4], "at": 9, "k": 4, "exclude": ["c"], "among": [7], "filter_seen": False,
    }  # fmt: skip
    asked = Request(
        items=["1", "b"], texts=["a text", {"title": "b"}], user="u", times=[1.0, 2.5, 3.0, 4.0], at=9.0, k=4,
        exclude=["c"], among=["7"], filter_seen=False,
    )  # fmt: skip
    assert request_of(Line(8, content), 10) == ("3", asked)
    assert request_of(Line(8, {"user": 7}), 10) == ("7", Request(user="7", texts=[], items=[], exclude=[]))
    nothing = dict.fromkeys(content)
    assert request_of(Line(8, {**nothing, "items": ["a"]}), 6)[0] == "8"
    assert request_of(Line(8, {**nothing, "items": ["a"]}), 6)[1].k == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"a line is such as .*, not \[\]"),
        ({"item": []}, r"a line has no 'item' \(id, user, items, .*did you mean 'items'"),
        ({"items": "a"}, "items: 'a' is no list of at most 10,000"),
        ({"items": ["a"] * 10_001}, r"items: \['a', .*\.\.\. is no list of at most 10,000"),
        ({"items": [1.5]}, "items: 1.5 is no id"),
        ({"items": [True]}, "items: True is no id"),
        ({"items": [None]}, "items: None is no id"),
        ({"user": ["u"]}, r"user: \['u'\] is no id"),
        ({"id": "\ud800"}, "id: .* is no id"),
        ({"times": ["x"]}, "times: 'x' is no number of seconds"),
        ({"times": [float("nan")]}, "times: nan is no number"),
        ({"at": 10**400}, "at: 1000.* is no number"),
        ({"texts": [3]}, "texts: 3 is neither a text nor fields"),
        ({"texts": [{"title": 3}]}, "texts: .* is neither a text nor fields"),
        ({"k": 0}, "k: 0 is no whole number from 1 to 10,000"),
        ({"k": 10_001}, "k: 10001 is no whole number"),
        ({"k": True}, "k: True is no whole number"),
        ({"filter_seen": 1}, "filter_seen: 1 is neither true nor false"),
    ],
)
def test_what_is_wrong_is_said(content, message):
    with pytest.raises(DataError, match=message):
        request_of(Line(1, content), 10)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(module._FIELDS), _JSON) | _JSON)
@settings(max_examples=80, deadline=None)
def test_any_json_is_a_request_or_an_error_of_the_users(content):
    try:
        name, request = request_of(Line(1, content), 10)
    except DataError:
        return
    json.dumps([name, request.items, request.texts], ensure_ascii=False).encode("utf-8")
    assert 1 <= request.k <= 10_000
