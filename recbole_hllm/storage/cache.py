"""Arrays on disk that can be made again: where they lie, what keys them, how they are written and trusted.

A cache entry is a folder with one `.npy` file per array and a `meta.json` that says what they must look like.
An entry appears whole or not at all, and one that is not byte by byte as described is made again.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_hllm.config.places import recbole_folder
from recbole_hllm.errors import DataError
from recbole_hllm.storage.locks import take

logger = logging.getLogger(__name__)

MEGABYTE = 1 << 20
_WITHOUT_LOCKS = "several processes may make the same"


def cache_folder(cache_dir: str | None, data_path: str | Path) -> Path:
    """The folder for cache entries of the data in `data_path`; it need not exist.

    `cache_dir` if given; else a hidden folder beside the data; else, if the data lie inside an installed
    package or may not be written to, a folder of the user's cache ($XDG_CACHE_HOME or ~/.cache).
    """
    if cache_dir:
        return Path(cache_dir).expanduser()
    data_path = Path(data_path).resolve()
    beside = data_path / ".recbole_hllm_cache"
    writable = os.access(beside if beside.exists() else data_path, os.W_OK | os.X_OK)
    if writable and not _inside_package(data_path):
        return beside
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user_cache / "recbole_hllm" / f"{data_path.name}-{digest(str(data_path))[:8]}"


@contextmanager
def locked(entry: Path, what: str) -> Iterator[None]:
    """One process at a time makes an entry; the others wait. The lock ends with its process, however that ends.

    Args:
        entry: of a cache; need not exist.
        what: that is waited for, for the log.

    Raises:
        DataError: the cache cannot be written.
    """
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        file = open(entry.parent / f".{entry.name}.lock", "w")
    except OSError as error:
        reason = f"cannot write to the cache {entry.parent}: {error.strerror}; name another in cache_dir"
        raise DataError(reason) from error
    with file:
        if not take(file.fileno(), wait=False, otherwise=_WITHOUT_LOCKS):
            logger.info("%s is being made by another process; waiting for it", what)
            take(file.fileno(), wait=True, otherwise=_WITHOUT_LOCKS)
        yield


def _inside_package(path: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or path.is_relative_to(recbole_folder().resolve())


@dataclass(frozen=True)
class Blocks:
    """A flat array for ``digest`` that is never whole in memory.

    Attributes:
        dtype: of its numbers.
        size: how many.
        blocks: arrays of them, in order; read once.
    """

    dtype: Any
    size: int
    blocks: Iterable[np.ndarray]


def digest(*parts: object) -> str:
    """Hash (24 hexadecimal characters of SHA-256) of strings, bytes, arrays and JSON-able values, in order.

    The same on every machine and in every process. Types and boundaries count: ("ab", "c"), ("a", "bc") and
    (b"ab", "c") all differ. ``Blocks`` count as the array of them.
    """
    sha = hashlib.sha256()
    for part in parts:
        kind, size, blocks = _to_bytes(part)
        sha.update(f"{kind}:{size}:".encode())
        for block in blocks:
            sha.update(block)
    return sha.hexdigest()[:24]


def _to_bytes(part: object) -> tuple[str, int, Iterable[Any]]:
    if isinstance(part, Blocks):
        dtype = np.dtype(part.dtype)
        return f"array {dtype.str} {(part.size,)}", part.size * dtype.itemsize, part.blocks
    if isinstance(part, np.ndarray):
        if part.dtype.hasobject:
            raise TypeError("digest: an array of Python objects has no stable bytes")
        flat = np.ascontiguousarray(part).reshape(-1)
        return f"array {part.dtype.str} {part.shape}", part.nbytes, [flat.view(np.uint8)]
    kind, content = _plain_bytes(part)
    return kind, len(content), [content]


def _plain_bytes(part: object) -> tuple[str, bytes]:
    if isinstance(part, str):
        return "str", part.encode("utf-8", "surrogatepass")
    if isinstance(part, bytes):
        return "bytes", part
    return "json", json.dumps(part, sort_keys=True).encode()


def write_arrays(folder: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Writes one cache entry. Other processes may read or write the same entry at the same time.

    Args:
        folder: the entry; an older one there is replaced.
        arrays: name -> array; the name is the file's name.
        meta: JSON-able; `read_arrays` returns the entry only to who expects the same.

    Raises:
        DataError: not enough disk, or the folder cannot be written.
    """
    with new_entry(folder, meta, sum(array.nbytes for array in arrays.values())) as half_made:
        for name, array in arrays.items():
            np.save(half_made / f"{name}.npy", array, allow_pickle=False)


@contextmanager
def new_entry(folder: Path, meta: dict[str, Any], needed: int) -> Iterator[Path]:
    """A folder to write an entry's `.npy` files into, for arrays too large for the memory; it becomes the entry at the
    end, and is removed where the work on it fails.

    Args:
        folder, meta: as for `write_arrays`.
        needed: bytes of all arrays.

    Raises:
        DataError: not enough disk, or the folder cannot be written.
    """
    half_made = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    try:
        check_room(folder.parent, needed + MEGABYTE)
        half_made.mkdir()
        yield half_made
        description = {path.stem: _describe(path) for path in sorted(half_made.glob("*.npy"))}
        content = json.dumps({"meta": meta, "arrays": description}, indent=1)
        (half_made / "meta.json").write_text(content, encoding="utf-8")
        _put_in_place(half_made, folder, meta)
    except OSError as error:
        raise DataError(f"{folder}: cannot write the cache ({error}). Set cache_dir elsewhere.") from error
    finally:
        shutil.rmtree(half_made, ignore_errors=True)


def check_room(folder: Path, needed: int) -> None:
    """Makes the folder of cache entries; worth a call before hours of work on what is to be written.

    Args:
        needed: bytes.

    Raises:
        DataError: less is free, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"{folder}: cannot write the cache ({error}). Set cache_dir elsewhere.") from error
    if free < needed:
        raise DataError(
            f"{folder}: not enough disk for the cache: it needs {needed / MEGABYTE:.1f} MB, "
            f"{free / MEGABYTE:.1f} MB free. Make room, or set cache_dir to a folder on another disk."
        )


def _describe(path: Path) -> dict[str, Any]:
    array = _open(path)
    size = path.stat().st_size
    return {"shape": list(array.shape), "dtype": array.dtype.str, "bytes": size, "sha256": file_digest(path)}


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an empty array cannot be memory-mapped; what is wrong otherwise is so again
        return np.load(path, allow_pickle=False)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(MEGABYTE):
            sha.update(block)
    return sha.hexdigest()


def held_by(value: Any) -> list[Any]:
    """Hashes of what is in a file, a run's folder or another one; a name that is none of these stays as it is."""
    path = Path(str(value)).expanduser()
    if not value or not path.exists():
        return value
    if path.is_file():
        return [file_digest(path)]
    weights = path / "best" / "weights.safetensors"
    files = [weights] if weights.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [entry for file in files for entry in (str(file.relative_to(path)), file_digest(file))]


def _put_in_place(half_made: Path, folder: Path, meta: dict[str, Any]) -> None:
    """Renames, which is atomic. What stands in the way is either as good as ours or gets out of it first."""
    while True:
        try:
            half_made.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if read_arrays(folder, meta) is not None:
            return
        discarded = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
        try:
            folder.rename(discarded)
        except FileNotFoundError:
            continue  # another writer removed it first
        shutil.rmtree(discarded, ignore_errors=True)


def read_arrays(folder: Path, expected_meta: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """The memory-mapped arrays of a cache entry; None if it is absent, damaged or made for something else."""
    try:
        description = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if description["meta"] != json.loads(json.dumps(expected_meta)):
            logger.info("%s: the cache was made with other settings and is made again", folder)
            return None
        arrays = description["arrays"].items()
        return {name: _load(folder / f"{name}.npy", expected) for name, expected in arrays}
    except FileNotFoundError:
        if folder.exists():
            logger.warning("%s: the cache is incomplete and is made again", folder)
        return None
    except Exception as error:  # damaged bytes make json and numpy raise almost anything
        logger.warning("%s: the cache is damaged (%s) and is made again", folder, error)
        return None


def newest_arrays(
    cache: Path, stem: str, meta: dict[str, Any], whole: Callable[[dict[str, np.ndarray]], bool]
) -> dict[str, np.ndarray] | None:
    """The arrays of the newest sound entry whose name begins with ``stem``; None where there is none.

    Args:
        meta: as for ``read_arrays``.
        whole: whether its arrays are those that there should be.
    """
    files = [file for file in cache.glob(f"{stem}-*/meta.json") if file.is_file()]
    newest_first = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
    found = (read_arrays(file.parent, meta) for file in newest_first)
    return next((arrays for arrays in found if arrays is not None and whole(arrays)), None)


def _load(path: Path, expected: dict[str, Any]) -> np.ndarray:
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise ValueError(f"{path.name} has {size} bytes instead of {expected['bytes']}")
    if file_digest(path) != expected["sha256"]:
        raise ValueError(f"the checksum of {path.name} differs")
    array = _open(path)
    if list(array.shape) != expected["shape"] or array.dtype.str != expected["dtype"]:
        raise ValueError(f"{path.name} holds {array.dtype.str}{list(array.shape)}")
    return array
