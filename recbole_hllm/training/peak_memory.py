"""The most memory that a run has needed."""

from contextlib import suppress
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> int | None:
    """Bytes: the GPU's peak where one is used, the process's otherwise; None where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: there a process starts with the peak of the one that started it.
        (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    return getrusage(RUSAGE_SELF).ru_maxrss


def forget_peak_memory(device: torch.device) -> None:
    """Resets ``peak_memory``, where the system can."""
    if device.type == "cuda":
        if torch.cuda.is_initialized():  # before, there is no peak, and asking fails
            torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): VmHWM becomes the present size
