"""New folders are whole or not there."""

import os

import pytest

from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.storage.folders import making


def test_a_folder_gets_its_name_when_it_is_written(tmp_path):
    folder = tmp_path / "deep" / "out"
    with making(folder, "export") as new:
        (new / "part").mkdir()
        (new / "part" / "a.txt").write_text("a")
        assert not folder.exists()
    assert (folder / "part" / "a.txt").read_text() == "a"
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    with making(tmp_path / "out", "export") as new:
        (new / "a.txt").write_text("a")
    assert (tmp_path / "out" / "a.txt").is_file()


@pytest.mark.parametrize("error", [DataError("no"), KeyboardInterrupt()], ids=["ours", "ctrl-c"])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)), making(tmp_path / "out", "export") as new:
        (new / "a.txt").write_text("a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, said in (("full", "is not empty"), ("file", ": there is a file of that name")):
        with pytest.raises(ConfigError, match=f"^export: .*{name} ?{said}; name a new folder"):
            with making(tmp_path / name, "export"):
                pytest.fail("it was begun")
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_what_another_writes_meanwhile_stays(tmp_path):
    with pytest.raises(ConfigError, match="export: cannot write .*out"):
        with making(tmp_path / "out", "export") as new:
            (new / "a.txt").write_text("a")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs.txt").write_text("theirs")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="export: cannot write .*out: Not a directory"):
        with making(tmp_path / "file" / "out", "export"):
            pytest.fail("it was begun")
    assert os.listdir(tmp_path) == ["file"]
