import os
from pathlib import Path

import pytest
import torch

from recbole_hllm import memory
from recbole_hllm.processes import Processes

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """(limit of its container or None) -> a machine with 3,000 kB free of 8,000."""
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemFree: 1000 kB\nMemAvailable:    3000 kB\n")
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)

    def make(limit=None):
        if limit is not None:
            (tmp_path / "memory.max").write_text(f"{limit}\n")
            (tmp_path / "memory.current").write_text("900000\n")
            (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 300000\n")

    return make


@pytest.mark.parametrize(
    ("limit", "free"), [(None, 3_072_000), ("max", 3_072_000), (10**9, 3_072_000), (10**6, 400_000), (1000, 0)]
)
def test_free_is_what_the_machine_and_the_container_leave(machine, limit, free):
    machine(limit)
    assert memory.free_memory(CPU) == free
    assert memory.all_memory(CPU) == 8_192_000


def test_processes_of_one_machine_share_it(machine, monkeypatch):
    machine()
    monkeypatch.setattr(memory, "current", lambda: Processes(1, 4, 1, 2))
    assert memory.free_memory(CPU) == 1_536_000


def test_a_system_that_does_not_say(monkeypatch, tmp_path):
    for name in ("_MEMORY", "_STATUS", "_GROUP"):
        monkeypatch.setattr(memory, name, tmp_path / "none")
    assert memory.free_memory(CPU) == memory.all_memory(CPU) == float("inf")
    assert memory.used_memory(CPU) == 0


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="Linux says it")
def test_used_is_what_this_process_holds():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert memory.used_memory(CPU) == pytest.approx(resident, rel=0.05)
