"""Interactions as they are after reading, filtering and sorting, kept on disk and memory-mapped at the next start.

An entry is known by the content of the files and all settings that decide what is in it; one that is damaged or made
for something else is made again. Where it cannot be written, the run goes on without.
"""

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recbole_hllm.data.files.tokens import Tokens
from recbole_hllm.errors import DataError
from recbole_hllm.storage.cache import file_digest, locked, read_arrays, write_arrays

logger = logging.getLogger(__name__)

VERSION = 2
# Smaller files are read faster than the cache is worth its place on the disk.
CACHED_BYTES = 16 << 20
# A file that was changed so few seconds ago may change again without another time of change.
_SETTLED = 2.0


@dataclass
class Prepared:
    """Interactions that are ready.

    Attributes:
        columns: name -> (T,) array.
        tokens: name -> texts of a column of tokens.
        messages: (level, text) of what was logged on the way, to be said at each start.
    """

    columns: dict[str, np.ndarray]
    tokens: dict[str, Tokens]
    messages: list[tuple[int, str]] = field(default_factory=list)


def obtain(entry: Path, meta: dict[str, Any], build: Callable[[], Prepared]) -> Prepared:
    """What an entry of the cache holds, or what ``build`` makes and the next start finds. One process of several makes
    it, the others wait for it.

    Args:
        entry: its folder; need not exist.
        meta: JSON-able; all that decides about the content.

    Raises:
        UserError: what ``build`` raises; what is wrong with the cache is no error but a warning.
    """
    before = _stamp(entry)
    found = _read(entry, meta)
    if found is not None:
        return _said_again(found)
    with ExitStack() as held:
        try:
            held.enter_context(locked(entry, f"the cache {entry}"))
        except DataError as error:
            logger.warning(f"{error}; the data are read again at each start")
            return build()
        if _stamp(entry) != before and (found := _read(entry, meta)) is not None:
            return _said_again(found)
        made = build()
        try:
            _write(entry, meta, made)
        except DataError as error:
            logger.warning(f"{error} The run goes on without it")
            return made
        return _read(entry, meta) or made


def _said_again(found: Prepared) -> Prepared:
    for level, text in found.messages:
        logging.getLogger().log(level, text)
    return found


def _stamp(entry: Path) -> int | None:
    try:
        return (entry / "meta.json").stat().st_ino
    except OSError:
        return None


def _write(entry: Path, meta: dict[str, Any], made: Prepared) -> None:
    for left_behind in entry.parent.glob(f".{entry.name}-*"):  # by a process that was killed
        shutil.rmtree(left_behind, ignore_errors=True)
    about = {"columns": list(made.columns), "tokens": list(made.tokens), "messages": made.messages}
    arrays = {f"column{number}": column for number, column in enumerate(made.columns.values())}
    for number, tokens in enumerate(made.tokens.values()):
        arrays[f"text{number}"], arrays[f"offsets{number}"] = tokens.buffers()
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    write_arrays(entry, arrays, meta)


def _read(entry: Path, meta: dict[str, Any]) -> Prepared | None:
    arrays = read_arrays(entry, meta)
    if arrays is None:
        return None
    about = json.loads(arrays["about"].tobytes())
    columns = {name: _writable(arrays[f"column{number}"]) for number, name in enumerate(about["columns"])}
    tokens = {
        name: Tokens.from_buffers(arrays[f"text{number}"], arrays[f"offsets{number}"])
        for number, name in enumerate(about["tokens"])
    }
    return Prepared(columns, tokens, about["messages"])


def _writable(array: np.ndarray) -> np.ndarray:
    """The same file, mapped so that a write stays in this process: torch shares no array that it must not write to."""
    if isinstance(array, np.memmap) and array.filename is not None:
        return np.asarray(np.memmap(array.filename, array.dtype, "c", array.offset, array.shape))
    return array


def contents(files: Sequence[Path], folder: Path) -> list[str]:
    """SHA-256 of each file.

    A file is read only where its size, times or place on the disk differ from those in the record of ``folder``, which
    says what it held then.
    """
    record = folder / "files.json"
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        known = {}
    found, changed = [], False
    for file in files:
        status, name = file.stat(), str(file.resolve())
        signs = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        entry = known.get(name)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == signs and isinstance(entry[1], str)):
            entry = [signs, file_digest(file)]
            if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED:
                known[name], changed = entry, True
        found.append(entry[1])
    if changed:
        _record(record, known)
    return found


def _record(record: Path, known: dict[str, Any]) -> None:
    """Written whole or not at all; without it the files are read again, which is no harm."""
    half_made = record.with_name(f".{record.name}-{uuid.uuid4().hex}")
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        half_made.write_text(json.dumps(known), encoding="utf-8")
        os.replace(half_made, record)
    except OSError:
        half_made.unlink(missing_ok=True)
