"""Where the processes of one run meet: a torch store that records who has come and what ended the run.

A process that fails says so here before it leaves the others, so that of all messages one is printed.
"""

import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from recbole_hllm.errors import ConfigError, UserError

_SECONDS_TO_READ = 3.0  # that the host of the store stays after its failure, for the others to read it
_PAUSE = 0.05
_SECONDS_LATE = 2.0  # that torch, which says more of what went wrong, may be late with its own limit
_IN_USE = "EADDRINUSE"


class EndedElsewhere(UserError):
    """Another process has ended the run, and says why.

    Attributes:
        code: exit code of that process.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Meeting:
    """One process at the meeting.

    Attributes:
        store: of torch.
        rank, world_size: which process this is, of how many.
        is_host: the store ends with this process.
    """

    store: Any
    rank: int
    world_size: int
    is_host: bool
    _name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def from_environment(cls, world_size: int, minutes: float) -> "Meeting":
        """The place that torchrun or deepspeed names: MASTER_ADDR, MASTER_PORT and RANK.

        Raises:
            ConfigError: they are not set or wrong, the port is in use, or nobody is there.
        """
        rank, port = _number("RANK", world_size), _number("MASTER_PORT", world_size)
        if rank >= world_size:
            raise ConfigError(f"RANK: {rank} of WORLD_SIZE {world_size}; processes are counted from 0")
        of_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        is_host, host = rank == 0 and not of_launcher, os.environ.get("MASTER_ADDR") or "localhost"

        def connect() -> Any:
            return dist.TCPStore(host, port, world_size, is_host, timedelta(minutes=minutes), wait_for_workers=False)

        try:
            store = _within(60 * minutes + _SECONDS_LATE, connect)
        except (RuntimeError, ValueError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                why = f"silent for {minutes:g} minutes (process_minutes): another program may listen there"
            elif _IN_USE in str(error):
                why = "in use: another run may have it; choose another one, torchrun --master_port=PORT"
            else:
                why = f"not where the first process is ({_first_line(error)}); is it running?"
            raise ConfigError(f"MASTER_PORT: {port} of {host} is {why}") from error
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # of a launcher, whose store outlives a start
        return cls(dist.PrefixStore(f"recbole_hllm/{attempt}", store), rank, world_size, is_host)

    def wait_for_all(self, minutes: float) -> None:
        """Until every process has come.

        Raises:
            ConfigError: some have not in so many minutes, or two have the same RANK.
            EndedElsewhere: one has failed.
        """
        self.store.add("came", 1)
        if self.store.add(f"came/{self.rank}", 1) > 1:
            raise ConfigError(f"RANK: two processes are number {self.rank}; each needs a number of its own")
        end = time.monotonic() + 60 * minutes
        missing = list(range(self.world_size))
        while missing := [rank for rank in missing if not self.store.check([f"came/{rank}"])]:
            if (failure := self.failure()) is not None:
                raise failure
            if time.monotonic() > end:
                raise ConfigError(
                    f"WORLD_SIZE: {self.world_size} processes are expected, and number {', '.join(map(str, missing))} "
                    f"did not come within {minutes:g} minutes (process_minutes)"
                )
            time.sleep(_PAUSE)

    def failure(self) -> EndedElsewhere | None:
        """What another process has said that ended the run."""
        if not self.store.check(["failure"]):
            return None
        said = json.loads(self.store.get("failure"))
        if said["name"] == self._name:
            return None
        self.store.add("read", 1)
        return EndedElsewhere(f"process {said['rank']} of {self.world_size}: {said['message']}", said["code"])

    def says(self, message: str, code: int) -> EndedElsewhere | None:
        """Tells the others what ended this process; what ended the run instead, where another was first."""
        if self.store.add("failures", 1) > 1:
            self.store.wait(["failure"], timedelta(seconds=_SECONDS_TO_READ))
            return self.failure()
        said = {"name": self._name, "rank": self.rank, "message": message, "code": code}
        self.store.set("failure", json.dumps(said))
        return None

    def leave(self) -> None:
        """After a failure, its own or another's, the host of the store stays until those who came (all, where it failed
        before) have read why, but not for long."""
        end = time.monotonic() + _SECONDS_TO_READ
        while self.is_host and self.store.check(["failure"]) and time.monotonic() < end:
            if self.store.add("read", 0) >= (self.store.add("came", 0) or self.world_size) - 1:
                break
            time.sleep(_PAUSE)


def _number(name: str, world_size: int) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        what = f"'{value}', which is no number" if value else "not set"
        raise ConfigError(
            f"WORLD_SIZE is {world_size}, and {name} is {what}: start several processes with torchrun or deepspeed; "
            "for one alone unset WORLD_SIZE"
        )
    return int(value)


def _within(seconds: float, make: Callable[[], Any]) -> Any:
    """What ``make`` gives or raises; TimeoutError where that takes longer: torch waits for ever for the first answer of
    who listens at a port. The thread that waits there ends with the program."""
    answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put((make(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=answer, daemon=True).start()
    try:
        made, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return made


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
