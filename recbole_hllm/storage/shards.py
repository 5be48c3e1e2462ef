"""A cache entry that takes long to make: made in shards, each kept as soon as it is there, and joined at the end.

A process that is killed loses the shard it was at; the next one goes on behind those that are kept.
"""

import logging
import os
import shutil
import uuid
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from recbole_hllm.errors import DataError
from recbole_hllm.processes import current
from recbole_hllm.storage.cache import check_room, locked, new_entry, read_arrays

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

PROGRESS_FROM = 50_000  # rows; a bar for less would be in the way


def made_in_shards(
    entry: Path | None,
    meta: dict[str, Any],
    rows: int,
    size: int,
    make: Callable[[int, int], Arrays],
    *,
    whole: Callable[[Arrays], bool],
    what: str,
    row_bytes: int,
    unit: str = "item",
) -> Arrays:
    """Arrays of a number of rows, made some rows at a time by one process; others that want the same wait for it.

    Args:
        entry: of a cache, which is read if it is there; None keeps everything in memory.
        meta: as for ``write_arrays``; ``entry`` is named by all that decides the arrays, so that shards of an entry
            can only be its own.
        rows: number of rows, at least 1.
        size: rows of a shard.
        make: (begin, end) -> arrays of these rows. Those of all shards are joined along their first axis, whose length
            need not be the number of rows; names, types and the other axes are the same for all.
        whole: whether an entry that is there holds what it should.
        what: is done to the rows, for the progress bar and the log.
        row_bytes: of a row in all arrays, roughly: whether there is room for them is known before the work begins.
        unit: of the progress bar.

    Returns:
        The joined arrays, memory-mapped and read-only where there is an entry.

    Raises:
        DataError: the disk is full or the cache cannot be written; shards that are kept stay for the next start.
    """
    ranges = [(begin, min(begin + size, rows)) for begin in range(0, rows, size)]
    bar = partial(tqdm, total=rows, desc=what, unit=unit, disable=rows <= PROGRESS_FROM or not current().is_first)
    if entry is None:
        with bar() as shown:
            return _joined([_counted(make(*those), those, shown) for those in ranges])
    damaged = entry.exists()
    found = _read_whole(entry, meta, whole)
    if found is not None:
        return found
    with locked(entry, f"{entry} ({what})"):
        found = None if damaged else _read_whole(entry, meta, whole)  # another process may have made it meanwhile
        if found is None:
            with bar() as shown:
                _make(entry, meta, ranges, make, row_bytes * rows, shown)
            found = _read_whole(entry, meta, whole)
    if found is None:
        raise DataError(f"{entry}: the cache was changed while it was written; start again, or set cache_dir elsewhere")
    return found


def _read_whole(entry: Path, meta: dict[str, Any], whole: Callable[[Arrays], bool]) -> Arrays | None:
    """An entry that holds what it should; None for any other."""
    arrays = read_arrays(entry, meta)
    if arrays is not None and whole(arrays):
        return arrays
    if arrays is not None:
        logger.warning("%s: the cache is incomplete and is made again", entry)
    return None


def _make(entry: Path, meta: dict[str, Any], ranges: Any, make: Any, expected: int, shown: Any) -> None:
    shards = _Shards(entry)
    shards.make(ranges, make, shown, expected)
    shutil.rmtree(entry, ignore_errors=True)  # what is there is not what its name says
    with new_entry(entry, meta, shards.bytes) as folder:
        shards.join_into(folder)
    shards.remove()


def _counted(arrays: Arrays, those: tuple[int, int], bar: Any) -> Arrays:
    bar.update(those[1] - those[0])
    return arrays


def _joined(shards: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


class _Shards:
    """Files ``<number>.npz`` in a hidden folder beside the entry."""

    def __init__(self, entry: Path) -> None:
        self.folder = entry.with_name(f".{entry.name}.shards")
        self.files: list[Path] = []
        self.lengths: dict[str, int] = {}
        self.bytes = 0

    def make(
        self, ranges: Sequence[tuple[int, int]], make: Callable[[int, int], Arrays], bar: Any, expected: int
    ) -> None:
        """Those that are missing; with sizes of all."""
        there = sum(file.stat().st_size for file in self.folder.glob("*.npz"))
        check_room(self.folder, 2 * expected - there)  # once in shards and once joined
        for number, those in enumerate(ranges):
            file = self.folder / f"{number:06}.npz"
            arrays = _read(file)
            if arrays is None:
                arrays = make(*those)
                _write(file, arrays)
            else:
                bar.initial = those[1]  # no work of this process, so it says nothing of its rate
            self.files.append(file)
            for name, array in arrays.items():
                self.lengths[name] = self.lengths.get(name, 0) + len(array)
                self.bytes += array.nbytes
            bar.update(those[1] - those[0])

    def join_into(self, folder: Path) -> None:
        """One ``.npy`` file for each array, a shard in memory at a time. Written, not memory-mapped: a full disk is
        then an error and no signal that ends the process."""
        for name, length in self.lengths.items():
            with open(folder / f"{name}.npy", "wb") as target:
                for number, file in enumerate(self.files):
                    with np.load(file, allow_pickle=False) as shard:
                        array = shard[name]
                    if number == 0:
                        kind = np.lib.format.dtype_to_descr(array.dtype)
                        header = {"descr": kind, "fortran_order": False, "shape": (length, *array.shape[1:])}
                        np.lib.format.write_array_header_1_0(target, header)
                    target.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(file: Path) -> Arrays | None:
    """A shard that is there and sound: the archive has a checksum of each array."""
    try:
        with np.load(file, allow_pickle=False) as shard:
            return dict(shard)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _write(file: Path, arrays: Any) -> None:
    half_made = file.with_name(f"{file.name}.{uuid.uuid4().hex}.part")
    try:
        with open(half_made, "wb") as target:
            np.savez(target, **arrays)
        os.replace(half_made, file)
    except OSError as error:
        half_made.unlink(missing_ok=True)
        raise DataError(
            f"{file.parent}: cannot write the cache ({error}); what is there is kept. Make room and start again, or "
            "set cache_dir elsewhere."
        ) from error
