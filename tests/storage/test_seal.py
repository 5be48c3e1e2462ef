"""What a folder was sealed with is what it holds."""

import os

import pytest

from recbole_hllm.errors import ConfigError, Damaged
from recbole_hllm.storage.files import read_json
from recbole_hllm.storage.seal import SEAL, check_seal, seal, sync_folder


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    seal(tmp_path)
    return tmp_path


def test_sizes_and_digests(sealed):
    content = read_json(sealed / SEAL)
    assert content["a"] == {
        "bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }  # fmt: skip
    assert list(content) == ["a", "b"] and content["b"]["bytes"] == 0
    check_seal(sealed)
    (sealed / "new").write_text("mine")
    check_seal(sealed)


@pytest.mark.parametrize("content, said", [
    (b"ab", "it is {'bytes': 2, .* and was written as {'bytes': 3"), (b"abcd", "it is {'bytes': 4"),
    (b"abd", "it is {'bytes': 3"),
    (None, "No such file"),
])  # fmt: skip
def test_what_is_not_as_it_was_is_named(sealed, content, said):
    (sealed / "a").unlink() if content is None else (sealed / "a").write_bytes(content)
    with pytest.raises(Damaged, match=f"{sealed / 'a'} is missing or damaged: {said}"):
        check_seal(sealed)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 3}'])
def test_a_seal_that_is_damaged_is_named(sealed, content):
    (sealed / SEAL).write_text(content)
    with pytest.raises(Damaged, match="damaged"):
        check_seal(sealed)


def test_a_folder_without_a_seal_is_not_looked_at(tmp_path):
    (tmp_path / "a").write_text("anything")
    check_seal(tmp_path)


def test_a_seal_that_cannot_be_written_is_named(sealed):
    (sealed / SEAL).unlink()
    (sealed / SEAL).mkdir()
    (sealed / SEAL / "in the way").write_text("")
    with pytest.raises(ConfigError, match=f"cannot write .*{SEAL}"):
        seal(sealed)


def test_every_file_and_folder_is_brought_to_the_disk(sealed, monkeypatch):
    (sealed / "inner").mkdir()
    (sealed / "inner" / "c").write_text("c")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda opened: synced.append(os.readlink(f"/proc/self/fd/{opened}")))
    sync_folder(sealed)
    expected = [sealed / name for name in ("a", "b", SEAL, "inner", "inner/c")]
    assert sorted(synced[:-1]) == sorted(map(str, expected)) and synced[-1] == str(sealed)
