"""Locks: one holder at a time, handed to children, gone with their processes."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.storage.locks import held

# A process that takes a lock, starts one that inherits it, says so, and waits to be killed.
_HOLDER = """
import subprocess, sys, time
from pathlib import Path
from recbole_hllm.storage.locks import held
with held(Path(sys.argv[1])) as lock:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=lock.descriptors)
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_one_holds_it_at_a_time_and_the_file_goes_with_it(tmp_path):
    path = tmp_path / "new" / ".run.lock"
    with held(path) as lock:
        assert lock is not None and len(lock.descriptors) == 1 and path.is_file()
        with held(path, wait=False) as other:
            assert other is None
        assert path.is_file()
        with held(tmp_path / "other.lock", wait=False) as another:
            assert another is not None
    assert list(tmp_path.rglob("*.lock")) == []
    with held(path, wait=False) as lock:
        assert lock is not None


def test_it_is_let_go_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), held(tmp_path / "lock"):
        raise RuntimeError
    with held(tmp_path / "lock", wait=False) as lock:
        assert lock is not None


def test_who_waited_for_a_file_that_is_gone_takes_the_new_one(tmp_path, monkeypatch):
    path, flock, opened = tmp_path / "lock", fcntl.flock, []

    def removed_meanwhile(descriptor, how):
        opened.append(descriptor)
        if len(opened) == 1:
            path.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with held(path) as lock:
        assert len(opened) == 2 and os.path.samestat(os.fstat(lock.descriptors[0]), path.stat())


def test_it_is_held_until_the_last_of_its_processes_is_killed(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, path], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with held(path, wait=False) as lock:
        assert lock is None
    os.kill(child, signal.SIGKILL)
    for _ in range(100):
        with held(path, wait=False) as lock:
            if lock is not None:
                return
        time.sleep(0.05)
    raise AssertionError("the lock outlived its processes")


def test_a_disk_without_locks_says_so_and_goes_on(tmp_path, monkeypatch, caplog):
    def none(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with held(tmp_path / "lock") as lock:
        assert lock is not None
    assert "this disk has no locks (No locks available): only one process may make a table here" in caplog.text


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"), held(tmp_path / "file" / "lock"):
        pass
