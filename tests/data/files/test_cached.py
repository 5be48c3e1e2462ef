"""The cache of interactions: the same data as without, made again where it cannot be trusted, and never in the way."""

import errno
import json
import logging
import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest

from recbole_hllm import create_dataset
from recbole_hllm.data.files import atomic, cached
from recbole_hllm.data.files.cached import contents
from recbole_hllm.data.files.tokens import Tokens
from recbole_hllm.storage import cache

ITEMS = ("item_id:token\tclass:token", [(f"i{n}", "ab"[n % 2]) for n in range(1, 12)])


@pytest.fixture
def read(toy_config, write_dataset, tmp_path, random_rows, monkeypatch):
    """(**keys) -> the data set toy, whose file counts as large."""
    monkeypatch.setattr(atomic, "CACHED_BYTES", 1)
    write_dataset(tmp_path, "toy", random_rows(users=20, items=11, seed=3), items=ITEMS)
    return lambda **keys: create_dataset(toy_config(**{"cache_dir": str(tmp_path / "cache"), **keys}))


@pytest.fixture
def built(monkeypatch):
    """How often interactions were read from their files."""
    calls, prepare = [], atomic.AtomicDataset._prepare

    def counting(self, choice):
        calls.append(1)
        return prepare(self, choice)

    monkeypatch.setattr(atomic.AtomicDataset, "_prepare", counting)
    return calls


def entry_of(tmp_path):
    (entry,) = (tmp_path / "cache").glob("interactions-toy-*")
    return entry


def content(data):
    tokens = {name: list(texts) for name, texts in data.field2id_token.items()}
    columns = {name: data.inter_feat[name].tolist() for name in data.inter_feat}
    return tokens, columns, data.timestamps.tolist(), data.phase.tolist(), data.timestamps.dtype


@pytest.mark.parametrize(
    "keys",
    [
        {}, {"rm_dup_inter": "last"}, {"user_inter_num_interval": "[4,inf)"}, {"load_col": None},
        {"val_interval": {"timestamp": "[100,900]"}}, {"val_interval": {"class": ["a"]}},
        {"filter_inter_by_user_or_item": True},
    ],
    ids=str,
)  # fmt: skip
def test_the_next_start_has_the_same_data(read, built, monkeypatch, keys, caplog):
    caplog.set_level(logging.INFO)
    first = read(**keys)
    said = [record.message for record in caplog.records if "left out" in record.message]
    caplog.clear()
    second = read(**keys)
    assert built == [1]
    assert [record.message for record in caplog.records if "left out" in record.message] == said
    monkeypatch.setattr(atomic, "CACHED_BYTES", 1 << 40)
    without = read(**keys)
    assert content(first) == content(second) == content(without)
    second._change_feat_format()
    without._change_feat_format()
    assert second.sequences.items.tolist() == without.sequences.items.tolist()


def test_arrays_of_a_cached_start_lie_in_the_files_and_stay_as_they_are(read, tmp_path):
    read()
    data = read()
    column = data.inter_feat["item_id"].to_numpy()
    assert column.dtype == np.int32 and np.shares_memory(column, data.inter_feat["item_id"].to_numpy())
    assert np.shares_memory(data.inter_feat["timestamp"].to_numpy(), data.timestamps)
    before = column.copy()
    column[:] = 0  # in this process alone
    assert read().inter_feat["item_id"].tolist() == before.tolist()


def test_other_content_or_settings_are_read_again(read, built, tmp_path, write_dataset, random_rows, caplog):
    caplog.set_level(logging.INFO)
    read()
    write_dataset(tmp_path, "toy", random_rows(users=20, items=11, seed=4), items=ITEMS)
    changed = read()
    assert built == [1, 1] and "was made with other settings and is made again" in caplog.text
    assert len(list((tmp_path / "cache").glob("interactions-*"))) == 1, "the stale entry is gone"
    read(rm_dup_inter="first")
    read(val_interval={"class": ["a"]})
    assert len(built) == 4
    other = ("item_id:token\tclass:token", [(f"i{n}", "a") for n in range(1, 12)])
    write_dataset(tmp_path, "toy", random_rows(users=20, items=11, seed=4), items=other)
    everything = read(val_interval={"class": ["a"]})
    assert len(built) == 5 and content(everything)[1] == content(changed)[1]


def flip(path):
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: flip(entry / "column0.npy"),
        lambda entry: flip(entry / "text0.npy"),
        lambda entry: os.truncate(entry / "column1.npy", 50),
        lambda entry: (entry / "offsets0.npy").unlink(),
        lambda entry: (entry / "meta.json").write_text("{"),
        lambda entry: (entry / "meta.json").write_text(json.dumps({"meta": {}, "arrays": {}})),
        lambda entry: (entry / "meta.json").unlink(),
        lambda entry: [file.unlink() for file in entry.iterdir()],
    ],
)
def test_an_entry_that_cannot_be_trusted_is_made_again_with_a_message(read, built, tmp_path, damage, caplog):
    caplog.set_level(logging.INFO)
    expected = content(read())
    damage(entry_of(tmp_path))
    caplog.clear()
    assert content(read()) == expected and built == [1, 1]
    assert "is made again" in caplog.text
    assert content(read()) == expected and built == [1, 1]


def test_a_full_disk_while_writing_leaves_nothing(read, tmp_path, monkeypatch, caplog):
    save, calls = np.save, []

    def full(*words, **keys):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*words, **keys)

    monkeypatch.setattr(cache.np, "save", full)
    data = read()
    assert "No space left on device" in caplog.text and "goes on without" in caplog.text
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    monkeypatch.undo()
    monkeypatch.setattr(atomic, "CACHED_BYTES", 1)
    assert content(read()) == content(data) and entry_of(tmp_path)


def test_too_little_room_is_seen_before_writing(read, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    read()
    assert "not enough disk for the cache" in caplog.text and not list((tmp_path / "cache").glob("interactions*"))


def test_a_folder_that_cannot_be_written(read, built, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    expected = read(cache_dir=str(tmp_path / "file" / "cache"))
    assert "cannot write to the cache" in caplog.text and "read again at each start" in caplog.text
    assert content(read()) == content(expected) and len(built) == 2


def test_what_a_killed_process_left_behind_goes(read, tmp_path):
    read()
    entry = entry_of(tmp_path)
    left = entry.with_name(f".{entry.name}-abc")
    left.mkdir()
    (left / "column0.npy").write_bytes(b"half")
    shutil.rmtree(entry)
    read()
    assert not left.exists() and entry.exists()


def build_slowly(entry, barrier, counter):
    def build():
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.5)
        return cached.Prepared({"a": np.arange(5, dtype=np.int32)}, {}, [])

    barrier.wait()
    assert cached.obtain(entry, {"version": 1}, build).columns["a"].tolist() == [0, 1, 2, 3, 4]


def test_of_several_processes_one_makes_it_and_the_others_wait(tmp_path):
    fork = multiprocessing.get_context("fork")
    barrier, counter = fork.Barrier(3), fork.Value("i", 0)
    workers = [fork.Process(target=build_slowly, args=(tmp_path / "entry", barrier, counter)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0] and counter.value == 1


def test_a_mistake_in_the_file_is_not_kept(read, tmp_path, built):
    file = tmp_path / "toy" / "toy.inter"
    good = file.read_text()
    file.write_text(good + "u1\ti1\n")
    with pytest.raises(Exception, match="toy.inter, line .*: 2 columns"):
        read()
    file.write_text(good)
    read()
    assert len(built) == 2 and len(read().timestamps) == good.count("\n") - 1


@pytest.fixture
def digests(monkeypatch):
    """Files whose bytes were read for their hash."""
    read, digest = [], cached.file_digest
    monkeypatch.setattr(cached, "file_digest", lambda file: (read.append(file), digest(file))[1])
    return read


def test_a_file_is_hashed_again_only_when_it_may_have_changed(tmp_path, digests, monkeypatch):
    monkeypatch.setattr(cached, "_SETTLED", -1.0)
    file = tmp_path / "a"
    file.write_text("one")
    first = contents([file], tmp_path / "cache")
    assert contents([file], tmp_path / "cache") == first and len(digests) == 1
    kept = file.stat()
    file.write_text("two")
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # of the same size and time; the time of its status is not
    assert contents([file], tmp_path / "cache") != first and len(digests) == 2
    (tmp_path / "cache" / "files.json").write_text("[broken")
    assert contents([file], tmp_path / "cache") == contents([file], tmp_path / "cache") and len(digests) == 3


def test_a_file_of_this_moment_is_hashed_each_time(tmp_path, digests):
    file = tmp_path / "a"
    file.write_text("one")
    contents([file], tmp_path / "cache")
    contents([file], tmp_path / "cache")
    assert len(digests) == 2


def test_small_files_are_not_kept(toy_config, write_dataset, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    create_dataset(toy_config(cache_dir=str(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()


def test_texts_come_back_as_they_are(tmp_path):
    texts = ["", "é", "名前", "a\tb", "x" * 300]
    made = cached.Prepared({"a": np.arange(3)}, {"t": Tokens.of(["[PAD]", *texts])}, [(20, "said")])
    cached.obtain(tmp_path / "entry", {}, lambda: made)
    again = cached.obtain(tmp_path / "entry", {}, lambda: None)
    assert again.tokens["t"].tolist() == ["[PAD]", *texts] and again.messages == [[20, "said"]]
