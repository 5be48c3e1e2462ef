"""The processes of one run, as torchrun or deepspeed starts them: which this is, and what they send each other.

One process alone is the usual case: then nothing is waited for and nothing sent. Values travel as JSON and arrays as
bytes, so that no process runs what another sends. Every wait has a limit, and a failure of one ends all.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.meeting import EndedElsewhere, Meeting

T = TypeVar("T")

_SENT_AT_ONCE = 1 << 28  # bytes
_MINUTES_TO_TELL = 1 / 6  # that a process looks for the others to tell them why it ends
# How torch's errors of a connection, which have no class of their own, begin to look.
_OF_CONNECTIONS = ("gloo", "nccl", "connection reset", "connection closed", "broken pipe")


@dataclass(frozen=True)
class Processes:
    """Which process this is, and what all send each other; every one calls the same methods in the same order.

    Attributes:
        rank: which of all processes this is, from 0 on.
        world_size: how many there are.
        local_rank, local_world_size: the same on this node.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Writes what all have in common: the run's folder, the log."""
        return self.rank == 0

    def share(self, number: int) -> range:
        """Of so many things in a row, those that are this process's."""
        return range(number * self.rank // self.world_size, number * (self.rank + 1) // self.world_size)

    def wait(self) -> None:
        """Until all have come here."""
        if self.world_size > 1:
            dist.barrier(group=_group)

    def sum(self, value: float) -> float:
        """Of all processes' values."""
        return float(sum(self.gather(value)))

    def first_of(self, value: Any) -> Any:
        """The JSON-able value of the first process."""
        return self.gather(value if self.is_first else None)[0]

    def gather(self, value: Any) -> list[Any]:
        """Each process's JSON-able value, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        words = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(words)]), group=_group)
        return [json.loads(part.tobytes()) for part in self._bytes_of_all(words, [int(size) for size in sizes])]

    def gather_arrays(self, values: np.ndarray) -> list[np.ndarray]:
        """Each process's array, in the order of ranks; of any shapes and types of numbers."""
        return [arrays[0] for arrays in self.gather_lists([values])]

    def gather_lists(self, arrays: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Each process's arrays, in the order of ranks; as many as each has, of any shapes and types of numbers."""
        if self.world_size == 1:
            return [list(arrays)]
        flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
        described = self.gather([[array.dtype.str, array.shape, array.nbytes] for array in arrays])
        own = np.concatenate(flat) if flat else np.empty(0, np.uint8)
        parts = self._bytes_of_all(own, [sum(size for _, _, size in theirs) for theirs in described])
        return [_arrays_of(part, theirs) for part, theirs in zip(parts, described, strict=True)]

    def _bytes_of_all(self, own: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
        most = max(sizes)
        parts = [torch.empty(most, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(parts, torch.from_numpy(np.pad(own, (0, most - len(own)))), group=_group)
        return [part.numpy()[:size] for part, size in zip(parts, sizes, strict=True)]

    def first_array(self, values: np.ndarray | None) -> np.ndarray:
        """The array of the first process, which alone gives one."""
        dtype, shape = self.first_of(None if values is None else [values.dtype.str, values.shape])
        values = np.empty(shape, np.dtype(dtype)) if values is None else values
        if self.world_size > 1:
            flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            for begin in range(0, len(flat), _SENT_AT_ONCE):
                part = flat[begin : begin + _SENT_AT_ONCE]
                dist.broadcast(torch.from_numpy(part.copy() if self.is_first else part), 0, group=_group)
        return values

    def led(self, part: Callable[[list[int]], np.ndarray], lead: Callable[[Callable[..., list[np.ndarray]]], T]) -> Any:
        """What the first process makes of parts that all compute.

        Args:
            part: numbers -> what this process computes of them.
            lead: called in the first process, with a function that asks all for their parts of some numbers.

        Returns:
            What ``lead`` does; None in the others.
        """

        def asked(numbers: list[int] | None) -> list[np.ndarray]:
            wanted = self.first_of(numbers)
            return [] if wanted is None else self.gather_arrays(part(wanted))

        if not self.is_first:
            while asked(None):
                pass
            return None
        made = lead(asked)
        asked(None)
        return made

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is done inside, which asks the others nothing, fails for all where it fails for one, with its message.

        Raises:
            UserError: another process's.
        """
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        said = self.gather(None if failed is None else f"{failed}")
        if failed is not None:
            raise failed
        for rank, message in enumerate(said):
            if message is not None:
                raise UserError(f"process {rank} of {self.world_size}: {message}")


def _arrays_of(values: np.ndarray, described: list[Any]) -> list[np.ndarray]:
    ends = np.cumsum([size for _, _, size in described])
    parts = np.split(values, ends[:-1]) if described else []
    return [
        part.copy().view(np.dtype(dtype)).reshape(shape)
        for part, (dtype, shape, _) in zip(parts, described, strict=True)
    ]


_ALONE = Processes()
_current = _ALONE
_group: Any = None
_meeting: Meeting | None = None
_own_groups = False
_told: BaseException | None = None
_met_nobody = False


def current() -> Processes:
    """The processes of this run; one alone unless ``begin`` was called."""
    return _current


def world_size() -> int:
    """How many processes a launcher has started, whether they have met or not.

    Raises:
        ConfigError: WORLD_SIZE is not a number of processes.
    """
    value = os.environ.get("WORLD_SIZE") or "1"
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"WORLD_SIZE: '{value}' is not a number of processes")
    return int(value)


def local_place() -> tuple[int, int]:
    """Which of how many processes of this node this is, as torchrun or deepspeed says; their names differ."""
    rank, *sizes = (os.environ.get(name) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE"))
    return int(rank or 0), int(next(filter(None, sizes), 1))


def refuse_several(what: str, advice: str) -> None:
    """Raises ConfigError where a launcher has started several processes for what one does."""
    if world_size() > 1:
        raise ConfigError(f"{what}: start it without torchrun or deepspeed; {advice}")


def begin(device: torch.device, minutes: float = 30) -> Processes:
    """Joins the processes that torchrun or deepspeed has started; one alone where none has.

    Args:
        device: that this process computes on.
        minutes: that a process waits for the others, before it ends with an error.

    Raises:
        ConfigError: the others do not come or cannot be reached, or the port is in use.
        EndedElsewhere: another process has failed already.
    """
    global _current, _group, _own_groups
    size, limit = world_size(), timedelta(minutes=minutes)
    if size == 1 or _group is not None:
        return _current
    met, backend = _meet(size, minutes), "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        met.wait_for_all(minutes)
        if not dist.is_initialized():
            groups = dist.PrefixStore("groups", met.store)
            dist.init_process_group(backend, store=groups, rank=met.rank, world_size=size, timeout=limit)
            _own_groups = True
        _group = dist.new_group(backend="gloo", timeout=limit)
    except RuntimeError as error:
        raise ConfigError(f"WORLD_SIZE: the {size} processes cannot reach each other: {error}") from error
    _current = Processes(met.rank, size, *local_place())
    return _current


def end() -> None:
    """This process goes on alone; others that wait for it get an error at once."""
    global _current, _group, _meeting, _own_groups
    if _own_groups:
        with suppress(RuntimeError):  # groups that are broken already
            dist.destroy_process_group()
    if _meeting is not None:
        with suppress(RuntimeError):  # its host is gone
            _meeting.leave()
    _current, _group, _meeting, _own_groups = _ALONE, None, None, False


@contextmanager
def alone() -> Iterator[None]:
    """What is done inside is done by this process alone."""
    global _current
    before, _current = _current, _ALONE
    try:
        yield
    finally:
        _current = before


@contextmanager
def ending_together() -> Iterator[None]:
    """Around all that the processes do: one that fails tells the others, which end at once and say nothing more.

    Raises:
        EndedElsewhere: another process has failed, with its message; in the process itself its error is raised.
        UserError: another process is gone without a word, or does not come.
    """
    try:
        yield
    except BaseException as error:
        if _group is None:
            raise
        named = _of_lost_process(error) if isinstance(error, RuntimeError) else None
        instead = tell(named or error) or named
        end()
        if instead is not None:
            raise instead from error
        raise


def tell(error: BaseException) -> EndedElsewhere | None:
    """Tells the other processes what ends this one; what ended the run instead, where another was first.

    Nothing where one process runs alone, or the others cannot be reached.
    """
    global _told
    if isinstance(error, EndedElsewhere) or error is _told:
        return error if isinstance(error, EndedElsewhere) else None
    _told = error
    try:
        size = world_size()
        several = size > 1 and not _met_nobody
        return _meet(size, _MINUTES_TO_TELL).says(*_said_of(error)) if several else None
    except (UserError, RuntimeError):
        return None


def _said_of(error: BaseException) -> tuple[str, int]:
    """Message and exit code."""
    if isinstance(error, SystemExit):
        return "stopped", error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return "stopped", 130
    return (str(error), 2) if isinstance(error, UserError) else (f"{type(error).__name__}: {error}", 1)


def _meet(size: int, minutes: float) -> Meeting:
    global _meeting, _met_nobody
    if _meeting is None:
        _met_nobody = True
        _meeting = Meeting.from_environment(size, minutes)
        _met_nobody = False
    return _meeting


def _of_lost_process(error: RuntimeError) -> UserError | None:
    """What an error of torch says of the other processes; None for any other error."""
    text = str(error).partition(". This is typically")[0]  # Gloo guesses, and wishes good luck
    if not isinstance(error, dist.DistError) and not any(word in text.lower() for word in _OF_CONNECTIONS):
        return None
    if "timed out" in text.lower() or "timeout" in text.lower():
        return UserError(f"another process did not come in time (process_minutes): {text}")
    return UserError(f"another process is gone, killed or out of memory perhaps: {text}")
