"""A file appears whole or not at all, and what cannot be written is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs.folder import keep_ranks
from recbole_hllm.storage.files import read_json, write_json, write_text
from recbole_hllm.training.checkpoint import write_tensors

RANKS = {"rank": np.ones(3)}
WRITERS = {
    "metrics.json": lambda folder: write_json(folder / "metrics.json", {}),
    "table.md": lambda folder: write_text(folder / "table.md", ""),
    "weights.safetensors": lambda folder: write_tensors(folder / "weights.safetensors", {"a": torch.ones(3)}),
    "ranks-test.npz": lambda folder: keep_ranks(folder, test=RANKS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_path_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(ConfigError, match=f"cannot write {folder / name}: "):
            WRITERS[name](folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot write /dev/full: No space left on device"):
        write_text(Path("/dev/full"), "text")


def test_json_comes_back_and_replaces_what_was_there(tmp_path):
    (tmp_path / "a.json.part").write_text("mine")
    for content in ({"a": [1, None, 0.1]}, {}):
        write_json(tmp_path / "a.json", content)
        assert read_json(tmp_path / "a.json") == content
    assert (tmp_path / "a.json.part").read_text() == "mine" and len(os.listdir(tmp_path)) == 2


def test_a_write_that_breaks_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", 1)

    def broken(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(ConfigError, match="a.json: No space left on device"):
        write_json(tmp_path / "a.json", 2)
    assert read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("content", [None, "{"])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    if content:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(ModelError, match="a.json is missing or damaged"):
        read_json(tmp_path / "a.json")
