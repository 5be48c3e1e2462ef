"""Files of a run folder: JSON whole or not at all, and an error that names what cannot be written."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from recbole_hllm.errors import ConfigError, Damaged


@contextmanager
def writing(path: Path, key: str = "run_dir") -> Iterator[None]:
    """Around everything that writes into a run folder, or into another that ``key`` names.

    Raises:
        ConfigError: the disk is full or the path cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{key}: cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def write_text(path: Path, text: str) -> None:
    """Raises ConfigError where the file cannot be written."""
    with writing(path):
        path.write_text(text, encoding="utf-8")


def write_whole(path: Path, text: str) -> None:
    """Writes a file, which appears whole or not at all, whenever the program or the machine stops.

    Raises:
        ConfigError: the disk is full or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    with writing(path):
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        os.replace(temporary, path)


def sync(path: Path) -> None:
    """Returns when a file, or the names in a folder, are on the disk and not in the system's memory alone.

    Raises:
        OSError: the disk does not take them.
    """
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):  # Windows keeps names itself
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file, which appears whole or not at all.

    Raises:
        ConfigError: the disk is full or the file cannot be written.
    """
    write_whole(path, json_text(content))


def json_text(content: object) -> str:
    """The text of a JSON file: indented, with a line break at its end."""
    return json.dumps(content, indent=2) + "\n"


def finite(value: Any) -> Any:
    """Dicts, lists and numbers as every reader of JSON knows them: NumPy's scalars become Python's, and numbers that
    are not finite, such as an AUC of one class, None."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        Damaged: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} is missing or damaged: {error}") from error
