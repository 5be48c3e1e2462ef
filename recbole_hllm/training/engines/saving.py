"""A checkpoint that several processes write together, into a folder that all see."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recbole_hllm.processes import current
from recbole_hllm.storage.seal import seal
from recbole_hllm.training.checkpoint import replacing


@contextmanager
def replacing_together(folder: Path, kept_as: Path | None = None) -> Iterator[Path]:
    """As ``replacing``, for all processes: the first one makes the new folder, seals it once all are done, and puts it
    in its place.

    Raises:
        ConfigError: the disk is full or the folder cannot be written.
    """
    processes = current()
    if processes.is_first:
        with replacing(folder, kept_as) as new:
            processes.wait()
            yield new
            processes.wait()
            seal(new)
    else:
        processes.wait()
        yield folder.with_name(f".{folder.name}.part")
        processes.wait()
    processes.wait()
