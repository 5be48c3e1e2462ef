"""Where the processes of one run meet: a torch store that records who has come and what ended the run.

A process that fails says so here before it leaves the others, so that of all messages one is printed.
"""

import json
import os
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from recbole_hllm.errors import ConfigError, UserError

_SECONDS_TO_READ = 3.0  # that the host of the store stays for the others
# That a process has to end by itself once another has failed: it may be in a long computation, or wait for one that
# does not come any more.
_SECONDS_TO_END = 5.0
_PAUSE = 0.05
_SECONDS_LATE = 8.0  # that torch, which says more of what went wrong, may be late with its own limit
_PAUSE_OF_LISTENER = 0.2
_IN_USE = "EADDRINUSE"
_LAST_PORT = 65535


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
        heard_at: the same, by a connection of its own, which is never busy with a wait.
        rank, world_size: which process this is, of how many.
        is_host: the store ends with this process.
    """

    store: Any
    heard_at: Any
    rank: int
    world_size: int
    is_host: bool
    _name: str = field(default_factory=lambda: uuid.uuid4().hex)
    _heard: EndedElsewhere | None = None
    _hearing: threading.Lock = field(default_factory=threading.Lock)
    _left: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listener = threading.Thread(target=self._listen, name="meeting", daemon=True)
        self._listener.start()

    @classmethod
    def from_environment(cls, world_size: int, minutes: float) -> "Meeting":
        """The place that torchrun or deepspeed names: MASTER_ADDR, MASTER_PORT and RANK.

        Raises:
            ConfigError: they are not set or wrong, the port is in use, or nobody is there.
        """
        rank, port = _number("RANK", world_size), _number("MASTER_PORT", world_size)
        if rank >= world_size:
            raise ConfigError(f"RANK: {rank} of WORLD_SIZE {world_size}; processes are counted from 0")
        if port > _LAST_PORT:
            raise ConfigError(f"MASTER_PORT: {port} is no port; they end at {_LAST_PORT}")
        of_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        is_host, host = rank == 0 and not of_launcher, os.environ.get("MASTER_ADDR") or "localhost"

        def connect() -> list[Any]:
            limit = timedelta(minutes=minutes)
            return [
                dist.TCPStore(host, port, world_size, hosts, limit, wait_for_workers=False)
                for hosts in (is_host, False)
            ]

        try:
            stores = _within(60 * minutes + _SECONDS_LATE, connect)
        except (RuntimeError, ValueError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                why = f"silent for {minutes:g} minutes (process_minutes): another program may listen there"
            elif _IN_USE in str(error):
                why = "in use: another run may have it; choose another one, torchrun --master_port=PORT"
            else:
                why = f"not where the first process is ({_first_line(error)}); is it running?"
            raise ConfigError(f"MASTER_PORT: {port} of {host} is {why}") from error
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # of a launcher, whose store outlives a start
        store, heard_at = (dist.PrefixStore(f"recbole_hllm/{attempt}", store) for store in stores)
        return cls(store, heard_at, rank, world_size, is_host)

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
        with self._hearing:
            if self._heard is None and self.heard_at.check(["failure"]):
                said = json.loads(self.heard_at.get("failure"))
                if said["name"] != self._name:
                    self.heard_at.add("read", 1)
                    message = f"process {said['rank']} of {self.world_size}: {said['message']}"
                    self._heard = EndedElsewhere(message, said["code"])
            return self._heard

    def _listen(self) -> None:
        """Hears of another's failure while this process computes or waits, and ends it where it does not end itself:
        a collective of GPUs that waits for one that is gone waits for long."""
        with suppress(RuntimeError):  # the store is gone with its host
            while not self._left.wait(_PAUSE_OF_LISTENER):
                failure = self.failure()
                if failure is None:
                    continue
                if not self._left.wait(_SECONDS_TO_END):
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(failure.code)
                return

    def says(self, message: str, code: int) -> EndedElsewhere | None:
        """Tells the others what ended this process; what ended the run instead, where another was first."""
        if (heard := self.failure()) is not None:
            return heard
        if self.store.add("failures", 1) > 1:
            self.store.wait(["failure"], timedelta(seconds=_SECONDS_TO_READ))
            return self.failure()
        said = {"name": self._name, "rank": self.rank, "message": message, "code": code}
        self.store.set("failure", json.dumps(said))
        return None

    def leave(self) -> None:
        """Hears nothing more. The host of the store stays until all who came (all, where it failed before) have left,
        or have heard of a failure, but not for long."""
        self._left.set()
        self._listener.join()
        if self._heard is None:
            self.store.add("left", 1)
        end = time.monotonic() + _SECONDS_TO_READ
        while self.is_host and time.monotonic() < end:
            if self._number_of("read") + self._number_of("left") >= (self._number_of("came") or self.world_size):
                break
            time.sleep(_PAUSE)

    def _number_of(self, what: str) -> int:
        return int(self.store.add(what, 0))


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
