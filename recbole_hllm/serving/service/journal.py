"""The journal: items that were added and removed while the service ran, on the disk before a request is answered.

One file of JSON lines, to which each change adds one; the last one may be torn.

    {"added": {"a1": {"fields": {"title": "..."}, "vector": "<base64 of float32>"}}, "export": "0123456789ab"}
    {"removed": ["a1"]}

An item that was listed again as it was has no vector in its line.
"""

import base64
import json
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.storage.files import sync
from recbole_hllm.storage.locks import held

ITEMS = "items.jsonl"
_LOCK = "in-use"
# Lines that are kept although they may be of no use.
_FEW = 1000
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What the journal last says of an item.

    Args:
        fields: of an item that was added; None: it is the export's own.
        vector: (C,) as histories hold it.
        export: fingerprint of the export whose Item LLM the vector is of.
        listed: it was not removed afterwards.
    """

    fields: Mapping[str, str] | None = None
    vector: Tensor | None = None
    export: str | None = None
    listed: bool = True


class Journal:
    """The changes of a catalogue, in a folder that one service at a time writes.

    Args:
        folder: made where it is missing.

    Raises:
        ConfigError: it cannot be written, or another service does so.
        DataError: a line but the last one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ITEMS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            sync(folder)
        except OSError as error:
            raise ConfigError(f"journal: cannot write {self.path}: {error.strerror or error}") from error
        self._held = ExitStack()
        if self._held.enter_context(held(folder / _LOCK, wait=False)) is None:
            raise ConfigError(f"journal: another service writes {folder}; give each a folder of its own")
        whole = self._read()[1]
        if whole < self.path.stat().st_size:
            _LOG.warning(f"{self.path}: the last line is torn and left out; its request was never answered")
            os.truncate(self.path, whole)
        self._file = self.path.open("ab", buffering=0)

    def close(self) -> None:
        """Another service may write it."""
        self._file.close()
        self._held.close()

    # ---- writing ----

    def add(self, items: Mapping[str, Mapping[str, str]], vectors: Mapping[str, Tensor], export: str) -> None:
        """Writes that items were added; returns when that is on the disk.

        Raises:
            OSError: the disk does not take it; then nothing is written.
        """
        entries = {item: Entry(fields, vectors.get(item), export) for item, fields in items.items()}
        self._append(_line_of_added(entries, export))

    def remove(self, items: Iterable[str]) -> None:
        """Writes that items were removed; returns when that is on the disk.

        Raises:
            OSError: the disk does not take it; then nothing is written.
        """
        self._append(_line({"removed": list(items)}))

    def rewrite(self, entries: Mapping[str, Entry]) -> None:
        """Begins anew with these entries, at once or not at all.

        Raises:
            OSError: the disk does not take them; then the journal has what it had, or these entries, and later changes
                are added to what it has.
        """
        new = self.path.with_name(f".{ITEMS}.part")
        lines = [_line_of_added({item: entry}, entry.export) for item, entry in entries.items() if entry.fields]
        removed = [item for item, entry in entries.items() if not entry.listed]
        new.write_bytes(b"".join(lines + ([_line({"removed": removed})] if removed else [])))
        sync(new)
        opened = new.open("ab", buffering=0)
        try:
            os.replace(new, self.path)
        except OSError:
            opened.close()
            raise
        old, self._file = self._file, opened  # at once: what is written into the old one is nowhere
        old.close()
        sync(self.path.parent)

    def _append(self, line: bytes) -> None:
        before, left = self.path.stat().st_size, memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):  # the next line would begin in the middle of this one
                os.truncate(self.path, before)
            raise

    @property
    def is_long(self) -> bool:
        """Whether most of its lines are of no use any more."""
        entries, _, lines = self._read()
        return lines > _FEW + 2 * len(entries)

    # ---- reading ----

    def entries(self) -> dict[str, Entry]:
        """The last word about each item; of a line that is being written, nothing.

        Raises:
            DataError: a line but the last one is damaged.
        """
        return self._read()[0]

    def _read(self) -> tuple[dict[str, Entry], int, int]:
        """The entries, and how many bytes the lines have that are whole, and how many lines there are."""
        entries: dict[str, Entry] = {}
        lines = self.path.read_bytes().splitlines(keepends=True)
        whole = 0
        for number, line in enumerate(lines, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("no line break at its end")
                _tell(entries, json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                if number == len(lines):
                    break
                raise DataError(
                    f"{self.path}, line {number}: damaged ({error}); take the line out, which loses its change, or "
                    "name another folder as --journal"
                ) from error
            whole += len(line)
        return entries, whole, len(lines)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _line_of_added(entries: Mapping[str, Entry], export: str | None) -> bytes:
    added: dict[str, dict[str, Any]] = {}
    for item, entry in entries.items():
        added[item] = {"fields": dict(entry.fields or {})}
        if entry.vector is not None:
            vector = entry.vector.cpu().numpy().astype("<f4").tobytes()
            added[item]["vector"] = base64.b64encode(vector).decode()
    return _line({"added": added, "export": export})


def _tell(entries: dict[str, Entry], line: Mapping[str, Any]) -> None:
    """Takes in what a line says; a wrong one raises what Python does."""
    for item in line.get("removed", ()):
        entries[item] = replace(entries.get(item, Entry()), listed=False)
    for item, told in line.get("added", {}).items():
        fields, before = {str(key): str(value) for key, value in told["fields"].items()}, entries.get(item)
        if "vector" in told:
            bytes_of_vector = base64.b64decode(told["vector"], validate=True)
            vector = torch.from_numpy(np.frombuffer(bytes_of_vector, "<f4").copy())
            entries[item] = Entry(fields, vector, line["export"])
        elif before is not None and before.fields == fields:
            entries[item] = replace(before, listed=True)
        else:
            entries[item] = Entry(fields)
