"""Cache entries: their place, their key, and that only whole, fitting ones are trusted."""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.errors import DataError
from recbole_hllm.storage.cache import Blocks, cache_folder, digest, locked, read_arrays, write_arrays

META = {"version": 1, "keys": ("title", "tag")}


def example_arrays():
    tokens = np.arange(10, dtype=np.int32)
    return {"tokens": tokens, "offsets": np.array([0, 4, 10]), "none": np.zeros((0, 3))}


@pytest.fixture
def entry(tmp_path):
    folder = tmp_path / "cache" / "entry"
    write_arrays(folder, example_arrays(), META)
    return folder


# --- the place ----------------------------------------------------------------------------------------------


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))
    return tmp_path / "user cache" / "recbole_hllm"


def test_cache_dir_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("~/mine", tmp_path / "site-packages") == tmp_path / "mine"


def test_the_cache_lies_beside_the_data(tmp_path):
    folder = cache_folder(None, tmp_path)
    assert folder == tmp_path / ".recbole_hllm_cache"
    assert not folder.exists()


@pytest.mark.parametrize("packages", ["site-packages", "dist-packages"])
def test_never_inside_an_installed_package(tmp_path, user_cache, packages):
    data = tmp_path / packages / "someone" / "ml-100k"
    data.mkdir(parents=True)
    folder = cache_folder(None, data)
    assert folder.parent == user_cache and folder.name.startswith("ml-100k-")
    link = tmp_path / "link"
    link.symlink_to(data)
    assert cache_folder(None, link) == folder


def test_never_inside_recbole_wherever_it_is_installed(tmp_path, user_cache, monkeypatch):
    data = tmp_path / "checkout" / "recbole" / "dataset_example" / "ml-100k"
    data.mkdir(parents=True)
    monkeypatch.setattr("recbole_hllm.storage.cache.recbole_folder", lambda: tmp_path / "checkout" / "recbole")
    assert cache_folder(None, data).parent == user_cache


def test_read_only_data_use_the_cache_of_the_user(tmp_path, user_cache, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    first, second = tmp_path / "one" / "ml-100k", tmp_path / "two" / "ml-100k"
    assert cache_folder(None, first).parent == user_cache
    assert cache_folder(None, first) != cache_folder(None, second), "same name, other folder: other cache"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None, first).parent == tmp_path / ".cache" / "recbole_hllm"


# --- the key ------------------------------------------------------------------------------------------------


def test_digest_counts_types_boundaries_and_order():
    parts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (b"ab", "c"),
        ("c", "ab"),
        ("ab", "c", ""),
        (["ab", "c"],),
        (),
    ]
    numbers = np.arange(4)
    parts += [(numbers,), (numbers.astype(np.int32),), (numbers.reshape(2, 2),), (numbers[::-1],)]
    assert len({digest(*part) for part in parts}) == len(parts)


def test_digest_does_not_depend_on_layout_or_key_order():
    array = np.arange(6).reshape(2, 3)
    assert digest(array.T.copy()) == digest(array.T) == digest(np.asfortranarray(array.T))
    assert digest({"a": 1, "b": None}) == digest({"b": None, "a": 1})


def test_digest_of_blocks_is_that_of_the_array():
    array = np.arange(11.0)
    assert digest("a", Blocks(np.float64, 11, np.split(array, [3, 3, 7])), 5) == digest("a", array, 5)
    assert digest(Blocks(np.int64, 0, [])) == digest(np.empty(0, np.int64)) != digest(np.empty(0, np.int32))


def test_digest_is_the_same_in_another_process():
    parts = ("título", b"\x00", {"b": [1, 2.5, None]})
    program = f"from recbole_hllm.storage.cache import digest; print(digest(*{parts!a}))"
    command, folder = [sys.executable, "-c", program], Path(__file__).parents[2]
    other = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(*parts)
    assert len(digest()) == 24


@given(st.lists(st.text()), st.lists(st.text()))
def test_digest_tells_lists_of_texts_apart(first, second):
    assert (digest(*first) == digest(*second)) == (first == second)


def test_digest_refuses_what_has_no_stable_bytes():
    with pytest.raises(TypeError):
        digest(np.array([object()]))
    with pytest.raises(TypeError):
        digest(object())


# --- writing and reading ------------------------------------------------------------------------------------


def test_what_is_written_is_read_memory_mapped(entry):
    arrays = read_arrays(entry, META)
    for name, expected in example_arrays().items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype
    assert isinstance(arrays["tokens"], np.memmap) and not arrays["tokens"].flags.writeable
    assert [path.name for path in entry.parent.iterdir()] == ["entry"], "nothing half-made stays"


def test_absent_is_silent_and_other_meta_is_logged(entry, caplog):
    with caplog.at_level(logging.INFO, logger="recbole_hllm.storage.cache"):
        assert read_arrays(entry.parent / "absent", META) is None
        assert caplog.text == ""
        assert read_arrays(entry, META | {"version": 2}) is None
        assert "other settings" in caplog.text


def truncate_array(folder):
    data = (folder / "tokens.npy").read_bytes()
    (folder / "tokens.npy").write_bytes(data[:-4])


def lose_array(folder):
    (folder / "offsets.npy").unlink()


def change_shape(folder):
    np.save(folder / "tokens.npy", np.arange(10, dtype=np.int32).reshape(2, 5))


def change_type(folder):
    np.save(folder / "tokens.npy", np.arange(10, dtype=np.uint32))


def garble_array(folder):
    size = (folder / "tokens.npy").stat().st_size
    (folder / "tokens.npy").write_bytes(b"\x80" * size)


def flip_a_bit(folder):
    data = bytearray((folder / "tokens.npy").read_bytes())
    data[-1] ^= 1
    (folder / "tokens.npy").write_bytes(data)


def garble_header(folder):
    data = (folder / "tokens.npy").read_bytes()
    (folder / "tokens.npy").write_bytes(data[:10] + b"{'descr': '<i4', ((" + data[29:])


def empty_array_file(folder):
    (folder / "tokens.npy").write_bytes(b"")
    description = json.loads((folder / "meta.json").read_text())
    description["arrays"]["tokens"] |= {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    (folder / "meta.json").write_text(json.dumps(description))


def garble_meta(folder):
    (folder / "meta.json").write_text("{")


def empty_meta(folder):
    (folder / "meta.json").write_text("[]")


def pickled_array(folder):
    np.save(folder / "tokens.npy", np.array([{"code": "runs"}], dtype=object), allow_pickle=True)
    description = json.loads((folder / "meta.json").read_text())
    size = (folder / "tokens.npy").stat().st_size
    sha256 = hashlib.sha256((folder / "tokens.npy").read_bytes()).hexdigest()
    description["arrays"]["tokens"] = {"shape": [1], "dtype": "|O", "bytes": size, "sha256": sha256}
    (folder / "meta.json").write_text(json.dumps(description))


DAMAGES = [
    truncate_array,
    lose_array,
    change_shape,
    change_type,
    garble_array,
    flip_a_bit,
    garble_header,
    empty_array_file,
    garble_meta,
    empty_meta,
    pickled_array,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_not_trusted_and_can_be_written_again(entry, damage, caplog):
    damage(entry)
    assert read_arrays(entry, META) is None
    assert "made again" in caplog.text
    write_arrays(entry, example_arrays(), META)
    np.testing.assert_array_equal(read_arrays(entry, META)["tokens"], np.arange(10))
    assert [path.name for path in entry.parent.iterdir()] == ["entry"]


def test_an_entry_with_other_meta_is_replaced(entry):
    write_arrays(entry, {"tokens": np.ones(3)}, {"version": 2})
    assert list(read_arrays(entry, {"version": 2})) == ["tokens"]


def test_writers_at_the_same_time_leave_one_whole_entry(tmp_path):
    folder, failures = tmp_path / "entry", []

    def write():
        for _ in range(10):
            try:
                write_arrays(folder, example_arrays(), META)
            except Exception as error:
                failures.append(error)
            with contextlib.suppress(FileNotFoundError):  # while another writer replaces the entry
                truncate_array(folder)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    write_arrays(folder, example_arrays(), META)
    assert read_arrays(folder, META) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 2 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    big = np.zeros(3 << 20, dtype=np.uint8)
    with pytest.raises(DataError, match=r"not enough disk.*needs 4.0 MB, 2.0 MB free.*cache_dir"):
        write_arrays(tmp_path / "entry", {"big": big}, META)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(DataError, match="No space left on device.*Set cache_dir"):
        write_arrays(tmp_path / "entry", example_arrays(), META)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_names_cache_dir(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write the cache.*cache_dir"):
        write_arrays(tmp_path / "file" / "entry", example_arrays(), META)


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "entry").write_text("mine")
    with pytest.raises(DataError, match="cannot write the cache"):
        write_arrays(tmp_path / "entry", example_arrays(), META)
    assert (tmp_path / "entry").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_cache_on_a_disk_without_locks_is_used_all_the_same(tmp_path, monkeypatch, caplog):
    def none(descriptor, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / "entry", "the entry"):
        pass
    assert "this disk has no locks (Function not implemented): several processes may make the same" in caplog.text
