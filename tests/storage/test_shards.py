"""Entries made in shards: joined as if made at once, gone on with after an interruption, made by one process."""

import errno
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.errors import DataError
from recbole_hllm.storage import shards as module
from recbole_hllm.storage.shards import made_in_shards

META = {"format": 1}


class Maker:
    """Row i has the number i, in `repeated` i % 3 times; ``seen`` holds the ranges asked for."""

    def __init__(self, fails_at=None):
        self.seen, self.fails_at = [], fails_at

    def __call__(self, begin, end):
        if begin == self.fails_at:
            raise KeyboardInterrupt
        self.seen.append((begin, end))
        rows = np.arange(begin, end)
        return {
            "row": rows.astype(np.int32),
            "repeated": np.repeat(rows, rows % 3).astype(np.float64),
            "pairs": np.stack([rows, -rows], axis=1).astype(np.int16),
        }


def made(entry, rows=10, size=4, maker=None, whole=lambda arrays: len(arrays) == 3):
    maker = maker or Maker()
    arrays = made_in_shards(entry, META, rows, size, maker, whole=whole, what="count", row_bytes=20)
    return arrays, maker.seen


def assert_equal(arrays, rows):
    expected = Maker()(0, rows)
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@settings(max_examples=20)
@given(rows=st.integers(1, 20), size=st.integers(1, 25))
def test_shards_are_joined_as_if_made_at_once(tmp_path_factory, rows, size):
    entry = tmp_path_factory.mktemp("cache") / "entry"
    (in_memory, seen), (on_disk, seen_too) = made(None, rows, size), made(entry, rows, size)
    assert seen == seen_too == [(at, min(at + size, rows)) for at in range(0, rows, size)]
    assert_equal(in_memory, rows)
    assert_equal(on_disk, rows)
    assert all(isinstance(array, np.memmap) or not len(array) for array in on_disk.values())
    assert made(entry, rows, size)[1] == [] and visible(entry.parent) == ["entry"]
    assert not list(entry.parent.glob(".*shards"))


def test_an_interrupted_one_goes_on(tmp_path):
    first = Maker(fails_at=8)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "entry", maker=first)
    assert first.seen == [(0, 4), (4, 8)] and not (tmp_path / "entry").exists()
    arrays, seen = made(tmp_path / "entry")
    assert seen == [(8, 10)]
    assert_equal(arrays, 10)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from recbole_hllm.storage.shards import made_in_shards

def make(begin, end):
    if begin == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    rows = np.arange(begin, end)
    return {"row": rows.astype(np.int32), "repeated": np.repeat(rows, rows % 3).astype(np.float64),
            "pairs": np.stack([rows, -rows], axis=1).astype(np.int16)}

made_in_shards(Path(sys.argv[1]), {"format": 1}, 10, 4, make, whole=bool, what="count", row_bytes=20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_process_leaves_its_shards_and_no_lock(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "entry"], check=False)
    assert killed.returncode == -9
    arrays, seen = made(tmp_path / "entry")
    assert seen == [(8, 10)]
    assert_equal(arrays, 10)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-30], lambda content: b"", lambda content: content.replace(b"\x05", b"\x06")]
)
def test_a_damaged_shard_is_made_again(tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "entry", maker=Maker(fails_at=8))
    (folder,) = tmp_path.glob(".*shards")
    shard = folder / "000001.npz"
    assert damage(shard.read_bytes()) != shard.read_bytes()
    shard.write_bytes(damage(shard.read_bytes()))
    arrays, seen = made(tmp_path / "entry")
    assert seen == [(4, 8), (8, 10)]
    assert_equal(arrays, 10)


def test_an_entry_that_is_not_whole_is_made_again(tmp_path, caplog):
    made(tmp_path / "entry")
    (tmp_path / "entry" / "row.npy").write_bytes(b"x")
    arrays, seen = made(tmp_path / "entry")
    assert len(seen) == 3 and "damaged" in caplog.text
    assert_equal(arrays, 10)
    caplog.clear()
    answers = iter([False, True])
    assert len(made(tmp_path / "entry", whole=lambda arrays: next(answers))[1]) == 3
    assert "incomplete" in caplog.text


def test_too_little_room_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 399))
    maker = Maker()
    with pytest.raises(DataError, match="not enough disk for the cache.*cache_dir"):
        made(tmp_path / "entry", maker=maker)
    assert maker.seen == []


def test_a_disk_that_fills_keeps_what_is_there(tmp_path, monkeypatch):
    save, calls = np.savez, iter(range(10))

    def full(*arguments, **arrays):
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*arguments, **arrays)

    monkeypatch.setattr(module.np, "savez", full)
    with pytest.raises(DataError, match=r"cannot write the cache \(.*No space left.*what is there is kept"):
        made(tmp_path / "entry")
    (folder,) = tmp_path.glob(".*shards")
    assert sorted(path.name for path in folder.iterdir()) == ["000000.npz", "000001.npz"]
    monkeypatch.undo()
    assert made(tmp_path / "entry")[1] == [(8, 10)]


def test_two_at_the_same_time_make_it_once(tmp_path):
    class Slow(Maker):
        def __call__(self, begin, end):
            time.sleep(0.05)
            return super().__call__(begin, end)

    def run(maker):
        results.append(made(tmp_path / "entry", maker=maker)[0])

    makers, results = [Slow(), Slow()], []
    threads = [threading.Thread(target=run, args=[maker]) for maker in makers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(maker.seen) for maker in makers) == [0, 3]
    for arrays in results:
        assert_equal(arrays, 10)


def test_progress_begins_behind_what_is_there(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, "PROGRESS_FROM", 9)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "entry", maker=Maker(fails_at=8))
    made(tmp_path / "entry")
    assert "count: 100%" in capfd.readouterr().err
    made(tmp_path / "entry")
    assert capfd.readouterr().err == "", "nothing is drawn where nothing is made"
