"""Separated cells: Arrow and the csv module read the same, and what is malformed has a line and a reason."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.raw.delimited import Delimited
from recbole_hllm.data.raw.files import RawFile
from recbole_hllm.data.raw.report import Report
from recbole_hllm.errors import ConfigError, DataError


@pytest.fixture
def read(tmp_path):
    """Reads bytes: rows with their lines, and the report."""

    def run(data, columns=None, wanted=None, strict=False, **form):
        path = tmp_path / "some.csv"
        path.write_bytes(data)
        cells = Delimited(RawFile(path, "", len(data)), columns, **form)
        report = Report(strict)
        rows = []
        for block in cells.blocks(wanted or {name: name for name in cells.columns}, report):
            rows += zip(map(int, block.lines), *(column.to_pylist() for column in block.columns.values()), strict=True)
        return rows, report

    return run


def test_plain_lines(read):
    rows, report = read(b"\xef\xbb\xbfa,b\r\n1,x\r\n02, y \r\n,\r\n")
    assert rows == [(2, "1", "x"), (3, "02", " y "), (4, "", "")]
    assert (report.rows, report.malformed) == (3, 0)


def test_columns_by_name_in_another_order(read):
    rows, _ = read(b"a,b,c\n1,2,3\n", wanted={"c": "x", "a": "y"})
    assert rows == [(2, "3", "1")]


def test_quoted_cells_with_separators_and_line_breaks(read):
    rows, _ = read(b'a,b\n1,"x, ""y""\n\nz"\n2,plain\n3,"a\r\nb"\n')
    assert rows == [(2, "1", 'x, "y"\n\nz'), (5, "2", "plain"), (6, "3", "a\nb")]


def test_a_quoted_cell_goes_on_in_the_next_block(read, monkeypatch):
    monkeypatch.setattr("recbole_hllm.data.raw.files.BLOCK", 16)
    long = "word " * 20 + "\n" + "word\n" * 7
    monkeypatch.setattr(RawFile._blocks, "__defaults__", (16,))
    rows, _ = read(b'a,b\n1,"' + long.encode() + b'"\n2,x\n3,y\n')
    assert rows == [(2, "1", long), (11, "2", "x"), (12, "3", "y")]


def test_shifted_columns_and_blank_lines(read):
    rows, report = read(b"a,b\n1,2\n\n3\n4,5,6\n7,8\n")
    assert rows == [(2, "1", "2"), (6, "7", "8")]
    assert [(line["line"], line["reason"]) for line in report.shown] == [
        (4, "1 columns, expected are 2 (a, b)"), (5, "3 columns, expected are 2 (a, b)"),
    ]  # fmt: skip
    assert report.malformed == 2


def test_strict_stops_at_the_first(read):
    with pytest.raises(DataError, match=r"some.csv, line 4: 1 columns, expected are 2 \(a, b\); without --strict"):
        read(b"a,b\n1,2\n\n3\n4,5,6\n", strict=True)


def test_a_quotation_mark_without_an_end_costs_its_line_only(read):
    rows, report = read(b'a,b\n1,"x\n2,y\n3,z\n')
    assert rows == [(3, "2", "y"), (4, "3", "z")]
    assert report.shown[0]["line"] == 2 and report.shown[0]["reason"] == "a quotation mark without an end"


def test_a_quotation_mark_that_opens_no_cell_costs_its_line_only(read):
    """Inches: the next mark, in another row, does not close it."""
    rows, report = read(b'id,title\na,"5 inch tv\nb,nice "one"\nc,"x, y"\n')
    assert rows == [(3, "b", 'nice "one"'), (4, "c", "x, y")] and report.malformed == 1
    assert report.shown[0]["line"] == 2


def test_long_cells_are_read_with_quotation_marks_and_without(read):
    text = "x" * 300_000
    assert read(f'a,b\n1,"{text}"\n2,{text}\n'.encode())[0] == [(2, "1", text), (3, "2", text)]


def test_bytes_of_another_encoding(read):
    rows, report = read("a,b\n1,é\n2,x\n".encode("latin-1"))
    assert rows == [(3, "2", "x")]
    assert report.shown[0]["line"] == 2 and "is not valid utf-8; see --encoding" in report.shown[0]["reason"]
    assert read("a,b\n1,é\n".encode("latin-1"), encoding="latin-1")[0] == [(2, "1", "é")]


def test_a_line_break_of_old_macs_is_no_line_break(read):
    rows, report = read(b"a,b\n1,x\ry\n2,z\n")
    assert rows == [(3, "2", "z")] and report.malformed == 1 and report.shown[0]["line"] == 2


def test_a_separator_of_two_characters(read):
    assert read(b"1::x:y::3\n", ["a", "b", "c"], separator="::", quoted=False)[0] == [(1, "1", "x:y", "3")]


@pytest.mark.parametrize(
    "data, form, match",
    [
        (b"", {}, "some.csv is empty"),
        (b"a,a\n", {}, "line 1: column 'a' occurs twice"),
        (b"a,b\n1,2\n", {"wanted": {"c": "c"}}, r"no column 'c' \(there are: a, b\)"),
    ],
)
def test_files_that_cannot_be_read(read, data, form, match):
    with pytest.raises(DataError, match=match):
        read(data, **form)


@pytest.mark.parametrize("encoding", ["utf-16", "klingon"])
def test_encodings_that_cannot_be_read(read, encoding):
    with pytest.raises(ConfigError, match=f"--encoding={encoding}"):
        read(b"a\n", encoding=encoding)


CELL = st.text(st.sampled_from('ab,"\n\t é '), max_size=6)


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=12), st.sampled_from([16, 50, 1 << 20]))
def test_any_cells_that_the_csv_module_writes_come_back(tmp_path_factory, rows, size):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("x", "y", "z"), *rows])
    path = tmp_path_factory.mktemp("csv") / "some.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    report = Report()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RawFile._blocks, "__defaults__", (size,))
        blocks = list(Delimited(RawFile(path, "", 1)).blocks({"x": "x", "y": "y", "z": "z"}, report))
    found = [row for block in blocks for row in zip(*(c.to_pylist() for c in block.columns.values()), strict=True)]
    assert found == rows and report.malformed == 0


def test_a_longer_separator_and_a_header(read):
    rows, report = read(b'id::"name"::x\n1::a:b::2\n', separator="::", wanted={"name": "n", "x": "y"})
    assert rows == [(2, "a:b", "2")] and report.malformed == 0
