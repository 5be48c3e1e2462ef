"""Atomic files in blocks: the same cells as the reader of lines gives, and the same errors."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.utils import FeatureType

from recbole_hllm.data.files import blocks, text_blocks
from recbole_hllm.data.files.formats import find_table, read_columns
from recbole_hllm.data.files.reader import read_table
from recbole_hllm.errors import ConfigError, DataError

KINDS = {"user_id": FeatureType.TOKEN, "item_id": FeatureType.TOKEN, "timestamp": FeatureType.FLOAT}
HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"
# Words of any script, with quotes and spaces, of 1 to 200 characters.
WORDS = st.text(st.characters(exclude_characters="\t\r\n\0", exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ['"', "'a b'", ' "x', "007", "7", "NA", "nan", "null", "x" * 200, "名前", "[PAD]", "#N/A", " ", "\u2028"]
)
TIMES = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**31 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def write(folder, content, suffix=""):
    path = folder / f"a.inter{suffix}"
    content = content if isinstance(content, bytes) else content.encode()
    if suffix == ".gz":
        content = gzip.compress(content)
    elif suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def read(path, kinds=None, **keys):
    return read_columns(path, kinds or KINDS, "timestamp", **keys)


def cells(table, name):
    if name not in table.tokens:
        return table.columns[name].tolist()
    texts = table.tokens[name].tolist()
    return [texts[number] if number else "" for number in table.columns[name]]


@settings(max_examples=80)
@given(
    rows=st.lists(st.tuples(WORDS, WORDS, TIMES), min_size=1, max_size=12),
    newline=st.sampled_from(["\n", "\r\n"]),
    suffix=st.sampled_from(["", ".gz", ".zst"]),
    waiting=st.sampled_from([0, 1 << 20]),
)
def test_every_cell_is_read_as_it_is_written(folder, rows, newline, suffix, waiting):
    lines = [HEADER.strip(), *("\t".join(map(str, row)) for row in rows)]
    path = write(folder, newline.join(lines) + newline, suffix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_blocks, "_BLOCK", 1300)
        patch.setattr(blocks, "_WAITING", waiting)
        table = read(path)
    assert list(zip(*(cells(table, name) for name in KINDS), strict=True)) == rows
    times = [time for *_, time in rows]
    fits = all(-(2**31) <= time < 2**31 for time in times)
    assert table.columns["timestamp"].dtype == (np.int32 if fits else np.int64)
    for name in ("user_id", "item_id"):  # numbered as RecBole does
        codes, uniques = pd.factorize(read_table(path, [name])[name])
        assert table.tokens[name].tolist() == ["[PAD]", *uniques]
        assert table.columns[name].tolist() == (codes + 1).tolist()
        assert table.columns[name].dtype == np.int32


@settings(max_examples=40)
@given(numbers=st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_numbers_are_read_to_the_last_bit(folder, numbers):
    path = write(folder, "timestamp:float\trating:float\n" + "".join(f"{n!r}\t{n!r}\n" for n in numbers))
    table = read(path, {"timestamp": FeatureType.FLOAT, "rating": FeatureType.FLOAT})
    assert table.columns["rating"].tolist() == numbers and table.columns["rating"].dtype == np.float64
    assert table.columns["timestamp"].tolist() == numbers


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["1", "2.0", "3e2"], np.int32), (["1", "2.5"], np.float64), (["1.0", str(2**40)], np.int64),
        (["1", "9" * 30], np.float64), ([" 5", "+7"], np.int32),
    ],
)  # fmt: skip
def test_times_are_whole_where_all_are(folder, words, kind):
    table = read(write(folder, HEADER + "".join(f"u\ti\t{word}\n" for word in words)))
    assert table.columns["timestamp"].dtype == kind
    assert table.columns["timestamp"].tolist() == [float(word) for word in words]


def test_words_for_a_missing_number(folder):
    path = write(folder, "a:token\trating:float\nNA\tNA\nx\t\ny\tnan\nz\t1\n")
    table = read(path, {"a": FeatureType.TOKEN, "rating": FeatureType.FLOAT})
    assert np.isnan(table.columns["rating"]).tolist() == [True, True, True, False]
    assert cells(table, "a") == ["NA", "x", "y", "z"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: its first line"),
        (HEADER, "has a header but no rows"),
        (HEADER + "\n\r\n", "has a header but no rows"),
        (HEADER + "u\ti\t1\n\nu\ti\n", "line 4: 2 columns, but the header has 3"),
        (HEADER + "u\ti\t1\nu\ti\t2\tx\n", "line 3: 4 columns, but the header has 3"),
        (HEADER + "u\ti\t1\nu\t7\ti\n", "line 3, column timestamp: 'i' is not a number"),
        (HEADER + "u\ti\t2020-01-01\n", "line 2, column timestamp: '2020-01-01' is not a number"),
        (HEADER.encode() + b"u\ti\t1\nu\t\xff\t2\n", "line 3: not valid utf-8.*encoding"),
    ],
)
def test_what_is_wrong_is_named_by_line_also_inside_compressed_files(folder, content, message, suffix):
    with pytest.raises(DataError, match=f"a.inter{suffix}.*{message}"):
        read(write(folder, content, suffix))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_compressed_file_that_ends_too_early(folder, suffix, share):
    rng = np.random.default_rng(0)
    rows = "".join(f"u{rng.integers(9999)}\ti{rng.integers(9999)}\t{n}\n" for n in range(9000))
    path = write(folder, HEADER + rows, suffix)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(int(share * len(whole)), 8)])
    with pytest.raises(DataError, match=f"a.inter{suffix} cannot be read as .*ends too early or is damaged"):
        read(path)
    path.write_bytes(whole)
    assert len(read(path)) == 9000


def test_rows_are_named_by_their_line(folder):
    table = read(write(folder, HEADER + "\nu\ti\t1\n\n\nv\ti\t2\n"))
    assert [table.place(row) for row in range(2)] == ["line 3", "line 6"]


def test_other_separators_and_encodings(folder):
    path = write(folder, "user_id:token;timestamp:float\né;1\nü;2\n".encode("latin-1"))
    kinds = {"user_id": FeatureType.TOKEN, "timestamp": FeatureType.FLOAT}
    for encoding in ("latin-1", "cp1252"):
        assert cells(read(path, kinds, separator=";", encoding=encoding), "user_id") == ["é", "ü"]
    with pytest.raises(ConfigError, match="field_separator: '§' must be a single character of ASCII"):
        read(path, kinds, separator="§")
    path = write(folder, b"\xef\xbb\xbf" + HEADER.encode() + b"u\ti\t1\n")
    assert cells(read(path), "user_id") == ["u"]


def test_one_file_of_a_table(folder):
    write(folder, HEADER, ".gz")
    write(folder, HEADER)
    with pytest.raises(DataError, match="a.inter and a.inter.gz both exist; keep one of them"):
        find_table(folder / "a.inter")
