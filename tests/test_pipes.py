"""Output into pipes whose readers end before the program does."""

import io
import os
import subprocess
import sys

import pytest

from recbole_hllm.pipes import outlive_readers


@pytest.fixture
def piped(monkeypatch):
    """(name, unbuffered) -> a pipe's end to read from; the other one is sys.stdout or sys.stderr."""
    opened = []

    def make(name="stdout", unbuffered=False):
        read, write = os.pipe()
        raw = open(write, "wb", buffering=0)
        text = raw if unbuffered else io.BufferedWriter(raw)
        stream = io.TextIOWrapper(text, "ascii", "backslashreplace", line_buffering=name == "stderr",
                                  write_through=unbuffered)  # fmt: skip
        opened.append(stream)
        monkeypatch.setattr(sys, name, stream)
        return read

    yield make
    for stream in opened:
        stream.close()


def is_nowhere(stream):
    return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_is_printed_arrives_until_nobody_reads(piped, name, unbuffered):
    read = piped(name, unbuffered)
    print("before, ", end="", file=getattr(sys, name))
    outlive_readers()
    stream = getattr(sys, name)
    print("é", file=stream, flush=True)
    assert os.read(read, 100) == b"before, \\xe9\n", "in the encoding that it had"
    assert stream.line_buffering == (name == "stderr")
    os.close(read)
    for _ in range(2):
        print("x" * 100_000, file=stream, flush=True)
    assert is_nowhere(stream)


def test_a_reader_that_is_there_gets_everything(piped):
    read = piped()
    outlive_readers()
    print("a line", flush=True)
    assert not is_nowhere(sys.stdout) and os.read(read, 100) == b"a line\n"


def test_a_file_stays_as_it_is(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        outlive_readers()
        assert sys.stdout is stream


@pytest.mark.parametrize("stream", [None, io.StringIO(), io.TextIOWrapper(io.BytesIO())])
def test_streams_without_a_file_stay_as_they_are(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    outlive_readers()
    assert sys.stdout is stream


def test_a_training_goes_on_when_nobody_reads_its_output(settings_of, tmp_path):
    """As with ``2>&1 | head -n 1``, and the reader is gone before the first epoch ends."""
    keys = {**settings_of("SASRec"), "epochs": 30, "show_progress": True, "state": "info", "stopping_step": 100}
    words = [f"--{key}={value}" for key, value in keys.items()]
    command = [sys.executable, "-m", "recbole_hllm.cli", "--model=SASRec", f"--run_dir={tmp_path / 'run'}", *words]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert program.stdout.readline()
    program.stdout.close()
    assert program.wait(timeout=300) == 0
    assert (tmp_path / "run" / "metrics.json").exists()
    assert (tmp_path / "run" / "run.log").read_text().count(" training [") == 30
