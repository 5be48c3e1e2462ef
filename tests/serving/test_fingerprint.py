"""Fingerprints of exports."""

import shutil

import pytest
from exports import write_export

from recbole_hllm.serving.fingerprint import fingerprint


def test_a_copy_is_the_same_and_another_training_is_not(tmp_path):
    one = write_export(tmp_path / "one", texts=False)
    shutil.copytree(one, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == fingerprint(one)
    assert fingerprint(write_export(tmp_path / "other", texts=False, seed=1)) != fingerprint(one)
    assert fingerprint(write_export(tmp_path / "more", n_items=21, texts=False)) != fingerprint(one)


def test_what_is_no_part_of_the_recommendations_changes_nothing(tmp_path):
    folder = write_export(tmp_path / "one", texts=False)
    before = fingerprint(folder)
    (folder / "README.md").write_text("a model card")
    assert fingerprint(folder) == before


@pytest.mark.parametrize("place", [0, 1_000_000, 1_999_999])
def test_samples_of_a_large_file_are_read(tmp_path, place):
    file = tmp_path / "large.safetensors"
    file.write_bytes(bytes(2_000_000))
    before = fingerprint(tmp_path)
    content = bytearray(2_000_000)
    content[max(0, place - 40_000) : place + 40_000] = b"x" * len(content[max(0, place - 40_000) : place + 40_000])
    file.write_bytes(content)
    assert fingerprint(tmp_path) != before
