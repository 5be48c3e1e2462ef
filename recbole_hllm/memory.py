"""How much memory there is, and how much of it is in use, on the device that computes."""

from pathlib import Path

import torch

from recbole_hllm.processes import current

_MEMORY, _STATUS = Path("/proc/meminfo"), Path("/proc/self/status")
# Of a container: its limit and what it uses, of which the page cache can be given back.
_GROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> float:
    """Bytes that this process can still take: of the GPU, or of the machine, which the processes on it share evenly;
    infinite where the system does not say."""
    if device.type == "cuda":
        kept_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept_back
    available = _kilobytes(_MEMORY, "MemAvailable:")
    free = float("inf") if available is None else available * 1024.0
    return min(free, _free_of_group()) / current().local_world_size


def all_memory(device: torch.device) -> float:
    """Bytes of the GPU or the machine, free or not; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    total = _kilobytes(_MEMORY, "MemTotal:")
    return float("inf") if total is None else total * 1024.0


def used_memory(device: torch.device) -> float:
    """Bytes that this process holds: of the GPU, or of the machine; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return (_kilobytes(_STATUS, "VmRSS:") or 0) * 1024.0


def _kilobytes(file: Path, name: str) -> int | None:
    if not file.is_file():
        return None
    lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)


def _free_of_group() -> float:
    """What a container leaves, of version 2 of control groups."""
    limit, used, kinds = (_GROUP / name for name in ("memory.max", "memory.current", "memory.stat"))
    if not all(file.is_file() for file in (limit, used, kinds)) or limit.read_text().strip() == "max":
        return float("inf")
    cached = dict(line.split() for line in kinds.read_text().splitlines()).get("inactive_file", "0")
    return max(float(limit.read_text()) - float(used.read_text()) + float(cached), 0.0)
