"""Folders whose files are on the disk, with sizes and digests: what a kill or a power cut leaves is whole, or known."""

import hashlib
from pathlib import Path
from typing import Any

from recbole_hllm.errors import Damaged
from recbole_hllm.storage.files import read_json, sync, write_json

SEAL = "digests.json"
_AT_ONCE = 1 << 20


def seal(folder: Path) -> None:
    """Writes ``digests.json``: bytes and SHA-256 of each file there is in a folder.

    Raises:
        ConfigError: the disk is full or the file cannot be written.
    """
    write_json(folder / SEAL, {path.name: _fingerprint(path) for path in sorted(folder.iterdir()) if path.name != SEAL})


def check_seal(folder: Path) -> None:
    """Whether a folder holds what it was sealed with; one without a seal, of an earlier version, is not looked at.

    Raises:
        Damaged: a file is missing, shorter or longer, or has another content.
    """
    if not (folder / SEAL).exists():
        return
    sealed = read_json(folder / SEAL)
    if not isinstance(sealed, dict):
        raise Damaged(f"{folder / SEAL} is damaged: it is no list of files")
    for name, expected in sealed.items():
        path = folder / name
        try:
            found = _fingerprint(path)
        except OSError as error:
            raise Damaged(f"checkpoint {path} is missing or damaged: {error.strerror}") from error
        if found != expected:
            raise Damaged(f"checkpoint {path} is missing or damaged: it is {found}, and was written as {expected}")


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_AT_ONCE):
            digest.update(block)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def sync_folder(folder: Path) -> None:
    """Returns when a folder's files, and their names, are on the disk and not in the system's memory alone.

    Raises:
        OSError: the disk does not take them.
    """
    for path in folder.iterdir():
        if path.is_dir():
            sync_folder(path)
        else:
            sync(path)
    sync(folder)
