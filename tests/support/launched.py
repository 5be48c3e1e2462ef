"""Functions in several processes, which find each other as those that torchrun starts: by environment variables.

Processes are forked, so that each has what the test has loaded, and starts at once.
"""

import os
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass


@dataclass
class Ended:
    """How a process ended: its exit code, minus a signal's number, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def said(self):
        """What it printed as errors, without what torch's own code logs."""
        lines = (line.removeprefix("[rank0]: ").removeprefix("[rank1]: ") for line in self.err.splitlines())
        return [line for line in lines if line and not line.startswith("[")]


def free_port():
    """A port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def launch_well(function, *arguments, **options):
    """As ``launch``; a failure of one process fails the test, with what it printed last."""
    ended = launch(function, *arguments, **options)
    assert not any(process.code for process in ended), "\n".join(process.err[-4000:] for process in ended)


def launch(function, *arguments, world_size=2, ranks=None, port=None, seconds=240):
    """Calls ``function(*arguments)``, which returns an exit code, in several processes, and waits for their end.

    Args:
        ranks: of the processes that are started; all by default.
        port: where they meet; a free one by default.
        seconds: that they may take; those that take longer are killed and fail the test.
    """
    port, ranks = port or free_port(), range(world_size) if ranks is None else ranks
    with tempfile.TemporaryDirectory() as folder:
        files = [[os.path.join(folder, f"{number}.{kind}") for kind in ("out", "err")] for number in range(len(ranks))]
        started = []
        for rank, paths in zip(ranks, files, strict=True):
            launched = {
                "RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world_size,
                "MASTER_ADDR": "localhost", "MASTER_PORT": port,
            }  # fmt: skip
            started.append(os.fork() or _run(function, arguments, launched, paths))
        codes = _wait(started, seconds)
        return [Ended(code, *(open(path).read() for path in paths)) for code, paths in zip(codes, files, strict=True)]


def _run(function, arguments, launched, paths):
    """In the new process, which never comes back."""
    code = 1
    try:
        os.environ.update({name: str(value) for name, value in launched.items()})
        for number, path in enumerate(paths, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        code = function(*arguments) or 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(started, seconds):
    codes, end = {}, time.monotonic() + seconds
    while len(codes) < len(started) and time.monotonic() < end:
        for pid in started:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
        time.sleep(0.01)
    for pid in started:
        if pid not in codes:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    assert len(codes) == len(started), f"{len(started) - len(codes)} processes did not end in {seconds} s"
    return [codes[pid] for pid in started]
