"""The processes of one run, as torchrun or deepspeed starts them: which this is, and what they tell each other.

One process alone is the usual case: then nothing is waited for and nothing sent. Values travel as JSON and arrays as
bytes, so that no process runs what another sends.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from recbole_hllm.errors import ConfigError, UserError


@dataclass(frozen=True)
class Processes:
    """Which process this is, and what all tell each other; every one calls the same methods in the same order.

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

    def wait(self) -> None:
        """Until all have come here."""
        if self.world_size > 1:
            dist.barrier(group=_of_values())

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
        return [json.loads(part.tobytes()) for part in self.gather_arrays(words)]

    def gather_arrays(self, values: np.ndarray) -> list[np.ndarray]:
        """Each process's (n, ...) array, in the order of ranks; only n may differ between them."""
        if self.world_size == 1:
            return [values]
        group, own = _of_values(), torch.from_numpy(np.ascontiguousarray(values).view(np.uint8).reshape(-1).copy())
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(own)]), group=group)
        most = max(int(size) for size in sizes)
        parts = [torch.zeros(most, dtype=torch.uint8) for _ in range(self.world_size)]
        dist.all_gather(parts, torch.nn.functional.pad(own, (0, most - len(own))), group=group)
        sent = (part[: int(size)].numpy() for part, size in zip(parts, sizes, strict=True))
        return [part.view(values.dtype).reshape(-1, *values.shape[1:]) for part in sent]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is done inside fails for all where it fails for one, with that one's message.

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


_ALONE = Processes()
_current = _ALONE
_group: Any = None


def current() -> Processes:
    """The processes of this run; one alone unless ``begin`` was called."""
    return _current


def begin(device: torch.device, minutes: float = 30) -> Processes:
    """Joins the processes that torchrun or deepspeed has started; one alone where none has.

    Args:
        device: that this process computes on.
        minutes: that a process waits for the others, before it ends with an error.

    Raises:
        ConfigError: the others cannot be reached, or the port is in use.
    """
    global _current, _group
    world_size = int(os.environ.get("WORLD_SIZE") or 1)
    if world_size == 1 or _current is not _ALONE:
        return _current
    backend, limit = ("nccl" if device.type == "cuda" else "gloo"), timedelta(minutes=minutes)
    try:
        dist.init_process_group(backend, timeout=limit)
        _group = dist.new_group(backend="gloo", timeout=limit) if backend != "gloo" else dist.group.WORLD
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"the {world_size} processes of WORLD_SIZE cannot reach each other: {error}") from error
    names = ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)
    local_rank, local_world_size = (int(os.environ.get(name) or default) for name, default in names)
    _current = Processes(dist.get_rank(), world_size, local_rank, local_world_size)
    return _current


def end() -> None:
    """This process goes on alone."""
    global _current, _group
    if _current is not _ALONE:
        dist.destroy_process_group()
    _current, _group = _ALONE, None


def _of_values() -> Any:
    return _group
