"""Locks between processes of one machine, or of several that share a folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    """A lock that one process at a time holds. It ends with its processes, however these end, and leaves its file.

    It is the system's own (``flock``): on a local disk, and on NFS, CephFS, Lustre and the like where they are mounted
    with locks. Where there are none, everybody holds it, and the log says so.

    Args:
        path: of the lock's file; its folder is made.
        wait: until nobody else holds it; False gives None where somebody does.

    Raises:
        ConfigError: the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    with file:
        try:
            _lock(file.fileno(), wait)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            logging.getLogger().warning(
                f"{path.parent} is on a disk without locks ({error.strerror}): only one process may work in it"
            )
        yield Lock((file.fileno(),) if sys.platform != "win32" else ())


def _lock(descriptor: int, wait: bool) -> None:
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
