"""New folders: whole and on the disk, or not there."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from recbole_hllm.errors import ConfigError
from recbole_hllm.storage.files import sync
from recbole_hllm.storage.seal import sync_folder


def check_new(folder: Path, what: str) -> None:
    """Raises ConfigError where there is something of this name already, other than an empty folder; see ``making``."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{what}: cannot write {folder}: there is a file of that name; name a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{what}: {folder} is not empty; name a new folder")


@contextmanager
def making(folder: Path, what: str) -> Iterator[Path]:
    """A folder to write into, which gets its name once all is written: whoever looks finds the whole of it, or nothing.

    Args:
        folder: a new or an empty one; nothing is ever written over.
        what: does it, for errors.

    Raises:
        ConfigError: there is something of that name already, or it cannot be written.
    """
    folder = folder.absolute()
    check_new(folder, what)
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        new.mkdir(parents=True)
        yield new
        sync_folder(new)
        if folder.exists():  # empty; Windows renames over nothing, and nobody can have put a file into it unseen
            folder.rmdir()
        os.replace(new, folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{what}: cannot write {folder}: {why or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
