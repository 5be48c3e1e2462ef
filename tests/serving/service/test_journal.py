"""The journal: what it keeps, and what of a torn or damaged one."""

import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.serving.service import journal as module
from recbole_hllm.serving.service.journal import Entry, Journal

RED, BLUE = {"title": "red"}, {"title": "blue", "size": "é"}


def told(entries):
    """Entries as plain values."""
    return {
        item: (entry.fields, None if entry.vector is None else entry.vector.tolist(), entry.export, entry.listed)
        for item, entry in entries.items()
    }


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


def test_the_last_word_about_each_item(journal):
    vectors = {"a": torch.tensor([0.1, -2.5]), "b": torch.tensor([1e-30, 3.0])}
    journal.add({"a": RED, "b": BLUE}, vectors, "e1")
    journal.remove(["b", "own"])
    journal.add({"a": BLUE}, {"a": torch.tensor([5.0, 6.0])}, "e2")
    assert told(journal.entries()) == {
        "a": (BLUE, [5.0, 6.0], "e2", True),
        "b": (BLUE, vectors["b"].tolist(), "e1", False),
        "own": (None, None, None, False),
    }


def test_an_item_that_is_listed_again_as_it_was_keeps_its_vector(journal):
    journal.add({"a": RED}, {"a": torch.tensor([1.0])}, "e1")
    journal.remove(["a", "own"])
    journal.add({"a": RED, "own": BLUE}, {}, "e2")
    assert told(journal.entries()) == {"a": (RED, [1.0], "e1", True), "own": (BLUE, None, None, True)}


def test_another_service_may_not_write_it_but_afterwards(journal):
    with pytest.raises(ConfigError, match="another service writes"):
        Journal(journal.path.parent)
    journal.add({"a": RED}, {}, "e")
    journal.close()
    again = Journal(journal.path.parent)
    assert "a" in again.entries()
    again.close()


changes = some.lists(
    some.tuples(some.sampled_from("abc"), some.sampled_from([RED, BLUE, None])), min_size=1, max_size=6
)


@given(changes, some.data())
def test_a_torn_journal_has_all_whole_lines(tmp_path_factory, done, data):
    folder = tmp_path_factory.mktemp("torn")
    journal, states, sizes = Journal(folder), [{}], [0]
    for number, (item, fields) in enumerate(done):
        if fields is None:
            journal.remove([item])
        else:
            journal.add({item: fields}, {item: torch.tensor([float(number)])}, "e")
        states.append(told(journal.entries()))
        sizes.append(journal.path.stat().st_size)
    journal.close()
    kept = data.draw(some.integers(0, sizes[-1]))
    os.truncate(journal.path, kept)
    again = Journal(folder)
    whole = max(place for place, size in enumerate(sizes) if size <= kept)
    assert told(again.entries()) == states[whole] and again.path.stat().st_size == sizes[whole]
    again.remove(["after"])
    assert told(again.entries()) == {**states[whole], "after": (None, None, None, False)}
    again.close()


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\0\0\0\n", b'{"removed": ["b"]}', b"[1]\n", b'{"added": {"b": 1}}\n'])
def test_a_last_line_that_is_none_is_left_out(tmp_path, tail, caplog):
    journal = Journal(tmp_path)
    journal.remove(["a"])
    journal.close()
    journal.path.write_bytes(journal.path.read_bytes() + tail)
    again = Journal(tmp_path)
    assert list(again.entries()) == ["a"] and "the last line is torn" in caplog.text
    again.close()


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"added": {"b": {"fields": {}, "vector": "!"}}, "export": "e"}', b'{"removed": 3}', b"\xff"]
)
def test_a_damaged_line_before_the_last_is_named(tmp_path, line):
    journal = Journal(tmp_path)
    journal.remove(["a"])
    journal.close()
    journal.path.write_bytes(line + b"\n" + journal.path.read_bytes())
    with pytest.raises(DataError, match=r"items.jsonl, line 1: damaged .*--journal"):
        Journal(tmp_path)


def test_what_the_disk_does_not_take_leaves_nothing(journal, monkeypatch):
    journal.remove(["a"])
    before = journal.path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(OSError):
            journal.add({"b": RED}, {}, "e")
    assert journal.path.read_bytes() == before
    journal.add({"c": RED}, {}, "e")
    assert list(journal.entries()) == ["a", "c"]


def test_written_anew_it_says_the_same_in_fewer_lines(journal):
    for number in range(30):
        journal.add({"a": {"title": str(number)}}, {"a": torch.tensor([float(number)])}, "e")
    journal.remove(["a", "own"])
    entries, size = journal.entries(), journal.path.stat().st_size
    journal.rewrite(entries)
    assert told(journal.entries()) == told(entries) and journal.path.stat().st_size < size / 10
    journal.add({"b": RED}, {}, "e")
    assert list(journal.entries()) == ["a", "own", "b"]


def test_a_change_after_a_rewriting_that_failed_is_in_the_file(journal, monkeypatch):
    whole = module.sync

    def fails(path):
        if path.is_dir():
            raise OSError(5, "Input/output error")
        whole(path)

    journal.remove(["a"])
    with monkeypatch.context() as patch:
        patch.setattr(module, "sync", fails)
        with pytest.raises(OSError):
            journal.rewrite(journal.entries())
    journal.add({"b": RED}, {}, "e")
    journal.close()
    again = Journal(journal.path.parent)
    assert list(again.entries()) == ["a", "b"]
    again.close()


def test_it_is_long_when_most_lines_are_of_no_use(journal, monkeypatch):
    monkeypatch.setattr(module, "_FEW", 2)
    for _ in range(4):
        journal.remove(["a"])
    assert not journal.is_long
    journal.remove(["a"])
    assert journal.is_long
    journal.rewrite(journal.entries())
    assert not journal.is_long


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="journal: cannot write .*/file/journal"):
        Journal(tmp_path / "file" / "journal")


def test_lines_are_json_for_other_programs(journal):
    journal.add({"a": BLUE}, {"a": torch.tensor([1.0])}, "e")
    (line,) = map(json.loads, journal.path.read_text(encoding="utf-8").splitlines())
    assert line == {"added": {"a": {"fields": BLUE, "vector": "AACAPw=="}}, "export": "e"}
    assert Entry().listed
