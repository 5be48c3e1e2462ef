"""glibc's allocator, set to keep the memory of freed tensors for the next ones; the command line calls it at its start.

By default glibc asks the kernel for new memory for each large tensor and gives it back when the tensor is freed. A
training step makes and frees the same tensors again and again, so the kernel clears the same pages in every step.
"""

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

from recbole_hllm.errors import ConfigError

SWITCH = "RECBOLE_HLLM_MALLOC"
# Parameters of mallopt(3), by its names.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Smaller blocks come from the heap, which no longer gives memory back; larger ones still do, since few of them fit into
# holes that others leave. An older glibc takes its own limit at most.
_MMAP_BYTES, _MMAP_LIMIT, _NEVER = 2**28, 2**25, -1


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Sets glibc's ``mallopt`` thresholds for this process.

    Nothing changes where the C library is not glibc, where another allocator stands before it (``LD_PRELOAD`` of
    jemalloc, say), where the user has set glibc's own variables (``MALLOC_...``, or ``glibc.malloc`` in
    ``GLIBC_TUNABLES``), or with ``RECBOLE_HLLM_MALLOC=0``.

    Args:
        environ: environment variables.

    Returns:
        Whether they were set.

    Raises:
        ConfigError: ``RECBOLE_HLLM_MALLOC`` is neither 0 nor 1.
    """
    wanted = environ.get(SWITCH) or "1"
    if wanted not in ("0", "1"):
        raise ConfigError(f"the environment variable {SWITCH} is '{wanted}', which is neither 0 nor 1")
    if wanted == "0" or _set_by_user(environ):
        return False
    library = _glibc()
    if library is None:
        return False
    mapped = library.mallopt(M_MMAP_THRESHOLD, _MMAP_BYTES) or library.mallopt(M_MMAP_THRESHOLD, _MMAP_LIMIT)
    return bool(mapped and library.mallopt(M_TRIM_THRESHOLD, _NEVER))


def give_back_freed_memory() -> None:
    """Gives what is free of the heap back to the kernel, once: after work that needed much more than what follows."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _set_by_user(environ: Mapping[str, str]) -> bool:
    return any(name.startswith("MALLOC_") for name in environ) or "glibc.malloc" in environ.get("GLIBC_TUNABLES", "")


class _SymbolInfo(ctypes.Structure):
    """``Dl_info`` of dladdr(3)."""

    _fields_ = [
        ("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("name", ctypes.c_char_p), ("address", ctypes.c_void_p),
    ]  # fmt: skip


def _glibc() -> ctypes.CDLL | None:
    """The process's C library where it is glibc and its ``malloc`` is the one in use; else None."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "dladdr")):
        return None
    return library if _base(library, library.malloc) == _base(library, library.gnu_get_libc_version) else None


def _base(library: ctypes.CDLL, function: Any) -> int | None:
    """Where the file that a function is in is loaded."""
    info = _SymbolInfo()
    found = library.dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))
    return info.base if found else None
