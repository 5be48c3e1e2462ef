"""Raw files: packed, inside archives, in folders, and damaged."""

import gzip
import io
import tarfile
import zipfile

import pyarrow as pa
import pytest

from recbole_hllm.data.raw.files import RawFile, find_files, sha256_of
from recbole_hllm.errors import DataError

TEXT = b"one\ntwo\nthree"


def content(file):
    return b"".join(data for _, data in file.lines())


def test_plain_and_packed_files_have_the_same_lines(tmp_path):
    (tmp_path / "a.csv").write_bytes(TEXT)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(TEXT[:4]) + gzip.compress(TEXT[4:]))
    (tmp_path / "c.csv.zst").write_bytes(pa.compress(TEXT, codec="zstd", asbytes=True))
    (tmp_path / ".hidden").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("in/d.csv", TEXT)
    for ending, mode in (("tar", "w"), ("tar.gz", "w:gz")):
        with tarfile.open(tmp_path / f"e.{ending}", mode) as tar:
            info = tarfile.TarInfo("e.csv.gz")
            packed = gzip.compress(TEXT)
            info.size = len(packed)
            tar.addfile(info, io.BytesIO(packed))
    files = find_files([str(tmp_path)])
    assert [file.stem for file in files] == ["a.csv", "b.csv", "c.csv", "d.csv", "e.csv", "e.csv"]
    assert {content(file) for file in files} == {TEXT + b"\n"}
    assert files[0].first_line() == b"one"
    assert files[3].name == f"{tmp_path / 'd.zip'}:in/d.csv"


def test_what_programs_put_beside_the_data_is_passed_over(tmp_path):
    for name in (".trash/a.csv", "_temporary/0/b.csv", "_SUCCESS", "day=1/c.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(TEXT)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name in ("d.csv", "__MACOSX/._d.csv"):
            archive.writestr(name, TEXT)
    assert [file.stem for file in find_files([str(tmp_path)])] == ["d.csv", "c.csv"]
    assert len(find_files([str(tmp_path / "_SUCCESS")])) == 1, "unless it is named"


def test_blocks_have_whole_lines_and_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(RawFile._blocks, "__defaults__", (5,))
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfab\ncdefghijk\n\nl\nm")
    passed = []
    blocks = list(RawFile(tmp_path / "a", "", 21).lines(passed.append))
    assert blocks == [(1, b"ab\n"), (2, b"cdefghijk\n\nl\n"), (5, b"m\n")]
    assert sum(passed) == len((tmp_path / "a").read_bytes())


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_data_that_end_too_early_name_file_and_line(tmp_path, ending, monkeypatch):
    lines = b"".join(b"%d\n" % (number * 7919) for number in range(20_000))
    packed = gzip.compress(lines) if ending == "gz" else pa.compress(lines, codec="zstd", asbytes=True)
    path = tmp_path / f"a.csv.{ending}"
    path.write_bytes(packed[:-30])
    monkeypatch.setattr(RawFile._blocks, "__defaults__", (1 << 12,))
    with pytest.raises(DataError, match=rf"a.csv.{ending}, line \d+: cannot be read further") as error:
        content(RawFile(path, "", 1))
    assert ending == "zst" or "line 1:" not in str(error.value)


def test_damaged_archives_and_missing_files(tmp_path):
    for name in ("a.zip", "b.tar"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(DataError, match=rf"(?s){name}: cannot be read: .*; is the file whole"):
            find_files([str(tmp_path / name)])
    with pytest.raises(DataError, match="c.csv: there is no such file or folder"):
        find_files([str(tmp_path / "c.csv")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no files in"):
        find_files([str(tmp_path / "empty")])


def test_a_file_without_line_breaks_is_no_text(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_hllm.data.raw.files._LONGEST_LINE", 100)
    monkeypatch.setattr(RawFile._blocks, "__defaults__", (32,))
    (tmp_path / "a").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="line 1: no line break in 128 bytes"):
        content(RawFile(tmp_path / "a", "", 1000))


def test_checksums(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
