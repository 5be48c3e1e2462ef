"""TensorBoard's files lose what was added after a checkpoint, and nothing else."""

from recbole_hllm.training.events import cut_back, sizes


def test_what_was_added_is_removed(tmp_path):
    first, second = (tmp_path / f"events.out.tfevents.{number}" for number in (1, 2))
    first.write_bytes(b"12345")
    (tmp_path / "mine").write_text("mine")
    kept = sizes(tmp_path)
    assert kept == {first.name: 5}
    first.write_bytes(b"1234567")
    second.write_bytes(b"1")
    cut_back(tmp_path, kept)
    assert first.read_bytes() == b"12345" and not second.exists() and (tmp_path / "mine").exists()
    first.write_bytes(b"12")  # what a power cut took is not made up
    cut_back(tmp_path, kept)
    assert first.read_bytes() == b"12"


def test_a_folder_that_is_not_there(tmp_path):
    assert sizes(tmp_path / "gone") == {}
    cut_back(tmp_path / "gone", {"events.out.tfevents.1": 3})
