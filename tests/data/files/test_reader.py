"""Atomic files are read exactly, and a wrong one is refused with its file, line and column."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.utils import FeatureType

from recbole_hllm.data.files.reader import line_of, read_header, read_table, split_numbers, split_sequences
from recbole_hllm.errors import ConfigError, DataError

# Text of a cell: anything but what parts cells and lines.
CELLS = st.text(st.characters(exclude_characters="\t\r\n\0", exclude_categories=["Cs"]), max_size=8)


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "a.item"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_header_keeps_order_and_types(file):
    header = read_header(file("b:float\ta:token\tc:token_seq\td:float_seq\n"))
    assert list(header.items()) == [
        ("b", FeatureType.FLOAT),
        ("a", FeatureType.TOKEN),
        ("c", FeatureType.TOKEN_SEQ),
        ("d", FeatureType.FLOAT_SEQ),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["a.item is empty"]),
        ("\n", ["a.item is empty"]),
        ("item_id\ttitle\n1\tx\n", ["line 1", "'item_id' must be name:type"]),
        ("item_id:text\n1\n", ["line 1", "'item_id:text'", "token_seq"]),
        (":token\n1\n", ["line 1", "':token'"]),
        ("item_id:token,title:token\n1,x\n", ["line 1", "field_separator"]),
        ("a:token\ta:float\n1\t2\n", ["line 1", "column 'a' occurs twice"]),
        (b"a:token\tb\xff:token\n", ["line 1", "not valid utf-8", "`encoding`"]),
    ],
)
def test_wrong_header_is_refused(file, content, words):
    path = file(content)
    with pytest.raises(DataError) as error:
        read_header(path)
    assert str(path) in str(error.value) and all(word in str(error.value) for word in words)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no.item: No such file"):
        read_header(tmp_path / "no.item")


def test_separator_and_encoding_that_cannot_be_used(file):
    path = file("a:token\n1\n")
    with pytest.raises(ConfigError, match="field_separator: '::' must be a single character"):
        read_table(path, ["a"], separator="::")
    with pytest.raises(ConfigError, match="encoding: there is no encoding named 'utf-99'"):
        read_table(path, ["a"], encoding="utf-99")


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), newline=st.sampled_from(["\n", "\r\n"]))
def test_every_text_is_read_as_it_is_written(tmp_path_factory, rows, newline):
    path = tmp_path_factory.mktemp("text") / "a.item"
    lines = ["a:token\tb:token_seq\tc:token", *("\t".join(row) for row in rows)]
    path.write_bytes((newline.join(lines) + newline).encode())
    table = read_table(path, ["c", "a", "b"])
    assert list(table.columns) == ["c", "a", "b"]
    read = table[["a", "b", "c"]].fillna("").itertuples(index=False)
    assert [tuple(row) for row in read] == rows


@settings(max_examples=60)
@given(numbers=st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_floats_are_read_to_the_last_bit(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("float") / "a.inter"
    path.write_text("t:float\n" + "".join(f"{number!r}\n" for number in numbers))
    assert read_table(path, ["t"])["t"].tolist() == numbers


def test_quotes_missing_words_and_blanks_are_text(file):
    path = file('id:token\ttitle:token_seq\n1\t"Heroes" and more\n2\t"\nNA\tnan\n 4\t None \n5\t\n')
    table = read_table(path, ["id", "title"])
    assert table["id"].tolist() == ["1", "2", "NA", " 4", "5"]
    assert table["title"].fillna("EMPTY").tolist() == ['"Heroes" and more', '"', "nan", " None ", "EMPTY"]


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF8", "utf_8_sig"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_part_of_a_name(file, mark, encoding):
    path = file(mark + "item_id:token\ttitle:token_seq\n1\tŽižek 🎬\n".encode())
    assert list(read_header(path, encoding=encoding)) == ["item_id", "title"]
    assert read_table(path, ["item_id", "title"], encoding=encoding).values.tolist() == [["1", "Žižek 🎬"]]


def test_another_encoding(file):
    path = file("item_id:token\ttitle:token_seq\n1\tCafé\n".encode("latin-1"))
    assert read_table(path, ["title"], encoding="latin-1")["title"].tolist() == ["Café"]
    with pytest.raises(DataError, match=r"a.item, line 2: not valid utf-8.*set `encoding`"):
        read_table(path, ["title"])


def test_undecodable_line_deep_in_the_file(file):
    rows = [b"%d\tx" % number for number in range(5000)]
    rows[3210] = b"3210\t\xe9"
    with pytest.raises(DataError, match="line 3212: not valid utf-8"):
        read_table(file(b"item_id:token\ttitle:token\n" + b"\n".join(rows)), ["item_id"])


@pytest.mark.parametrize("columns", [["a"], ["a", "b", "c"]])
@pytest.mark.parametrize(("line", "number"), [("x\ty", 2), ("x\ty\tz\tw", 4), ("x\ty\tz\t", 4), ("x", 1)])
def test_too_few_or_many_columns_are_refused_whatever_columns_are_read(file, columns, line, number):
    path = file(f"a:token\tb:token\tc:token\n1\t2\t3\n{line}\n")
    with pytest.raises(DataError, match=f"a.item, line 3: {number} columns, but the header has 3"):
        read_table(path, columns)


def test_blank_lines_are_passed_over_and_counted(file):
    path = file("a:token\tt:float\n\n1\t1\n\n2\t2\n\n\n")
    table = read_table(path, ["a", "t"])
    assert table.values.tolist() == [["1", 1.0], ["2", 2.0]]
    assert [line_of(label) for label in table.index] == [3, 5]
    assert read_table(file("a:token\n\n1\n\n"), ["a"])["a"].tolist() == ["1"]


@pytest.mark.parametrize("content", ["a:token\tb:float\n", "a:token\tb:float", "a:token\tb:float\n\n\n"])
def test_a_header_alone_is_refused(file, content):
    with pytest.raises(DataError, match="a.item has a header but no rows"):
        read_table(file(content), ["a", "b"])


@pytest.mark.parametrize("word", ["yesterday", "1.2.3", "1,5", "2020-01-01", "0x10", "--"])
def test_what_is_no_number_is_named_with_line_and_column(file, word):
    path = file(f"a:token\tt:float\n1\t1\n\n2\t{word}\n3\tworse\n")
    with pytest.raises(DataError, match=f"a.item, line 4, column t: '{word}' is not a number"):
        read_table(path, ["a", "t"])
    assert read_table(path, ["a"])["a"].tolist() == ["1", "2", "3"]


def test_empty_and_nan_numbers_are_missing(file):
    table = read_table(file("t:float\ta:token\n\t1\nnan\t2\n3\t3\n"), ["t"])
    assert np.isnan(table["t"][0]) and np.isnan(table["t"][1]) and table["t"][2] == 3


def test_sequences_of_words_and_numbers(file):
    words = pd.Series(["a b", None, "  c  ", ""], name="w")
    assert [cell.tolist() for cell in split_sequences(words, " ")] == [["a", "b"], [], ["c"], []]
    numbers = pd.Series(["1 2.5", None], name="n")
    assert [cell.tolist() for cell in split_numbers(numbers, " ", "f")] == [[1.0, 2.5], []]
    with pytest.raises(DataError, match="f, line 3, column n: '2 x' is not a list of numbers"):
        split_numbers(pd.Series(["1", "2 x"], name="n"), " ", "f")
