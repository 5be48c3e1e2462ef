"""Locks between processes of one machine, or of several that share a folder."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from recbole_hllm.storage.files import writing

if sys.platform != "win32":  # which has no such locks
    import fcntl


class Lock(NamedTuple):
    """A lock that is held.

    Attributes:
        descriptors: of its open file. Processes that get them (``pass_fds``) hold the lock too, until the last of all
            these processes has ended.
    """

    descriptors: tuple[int, ...]


@contextmanager
def held(path: Path, wait: bool = True) -> Iterator[Lock | None]:
    """A lock that one process at a time holds, until the block ends, or its processes do, however that is.

    It is the system's own (``flock``): on a local disk, and on NFS, CephFS, Lustre and the like where they are mounted
    with locks. Where there are none, everybody holds it, and the log says so.

    Args:
        path: of the lock's file, which is there while somebody holds it; its folder is made.
        wait: until nobody else holds it; False gives None where somebody does.

    Raises:
        ConfigError: the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    with file:
        taken = take(file.fileno(), wait, "only one process may make a table here")
        if taken and not _is_there(path, file.fileno()):  # who had it before has removed it
            with held(path, wait) as lock:
                yield lock
            return
        try:
            yield Lock((file.fileno(),) if sys.platform != "win32" else ()) if taken else None
        finally:
            if taken:
                with suppress(OSError):  # Windows keeps what is open
                    path.unlink()


def take(descriptor: int, wait: bool, otherwise: str) -> bool:
    """Whether the lock of an open file is this process's now, until it closes the file.

    Args:
        wait: until nobody else holds it.
        otherwise: what the log says follows where the disk has no locks; everybody holds one there.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        reason = f"this disk has no locks ({error.strerror})"
        logging.getLogger().warning(f"{reason}: {otherwise}")
    return True


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
