"""TensorBoard's files lose what was added after a checkpoint, and nothing else."""

import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from recbole_hllm.training.events import cut_back, sizes, wait_for_a_later_name


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


def test_a_run_that_goes_on_within_a_second_is_read_in_order(tmp_path, monkeypatch):
    time.sleep(1 - time.time() % 1)
    for step, process in enumerate((9999, 10001)):  # as text, the later one comes first
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        wait_for_a_later_name(tmp_path)
        with SummaryWriter(str(tmp_path)) as writer:
            writer.add_scalar("loss", 1.0, step)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1]


def test_a_file_from_the_future_is_not_waited_for(tmp_path):
    (tmp_path / f"events.out.tfevents.{int(time.time()) + 60}.host.1.0").touch()
    (tmp_path / "events.out.tfevents.1").touch()
    begun = time.monotonic()
    wait_for_a_later_name(tmp_path)
    assert time.monotonic() - begun < 0.5
