"""What the command line sets in glibc's allocator, seen as page faults, and when it leaves it alone."""

import ctypes
import os
import shutil
import subprocess
import sys

import pytest

from recbole_hllm import allocator, cli
from recbole_hllm.errors import ConfigError

glibc_only = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()), reason="another libc")

# Page faults of ten blocks of 64 MiB, each freed before the next is made: larger than glibc keeps by itself.
FAULTS = """
import resource
def fill():
    for _ in range(10):
        b"x" * 2**26
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def printed(code, **variables):
    """The last word that a new Python process prints; variables of the tests' own allocator are not handed on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**kept, **variables}
    )
    return done.stdout.split()[-1]


@glibc_only
def test_the_command_line_keeps_freed_memory():
    """Without, each block's pages are fetched again: 16,384 of 4 KiB, or 32 where the kernel has larger ones."""
    started = "from recbole_hllm import cli\ncli.main(['--help'])\n"
    kept = int(printed(started + FAULTS))
    given_back = int(printed(started + FAULTS, RECBOLE_HLLM_MALLOC="0"))
    assert kept < 100 < 300 < given_back


ANSWER = "from recbole_hllm.allocator import keep_freed_memory; print(keep_freed_memory())"


@glibc_only
def test_it_says_whether_it_did():
    assert printed(ANSWER) == printed(ANSWER, RECBOLE_HLLM_MALLOC="1") == "True"
    assert printed(ANSWER, RECBOLE_HLLM_MALLOC="") == "True", "as if it were not set"


@pytest.mark.parametrize(
    "variables",
    [
        {"RECBOLE_HLLM_MALLOC": "0"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}, {"MALLOC_ARENA_MAX": "2"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
    ids=lambda variables: next(iter(variables)),
)  # fmt: skip
def test_what_the_user_has_set_stays(variables):
    assert printed(ANSWER, **variables) == "False"


@glibc_only
def test_variables_of_other_things_do_not_count():
    assert printed(ANSWER, GLIBC_TUNABLES="glibc.rtld.optional_static_tls=1024") == "True"


@glibc_only
@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler to make another allocator with")
def test_another_allocator_is_left_alone(tmp_path):
    source = "#include <stddef.h>\nvoid *__libc_malloc(size_t);\nvoid *malloc(size_t n) { return __libc_malloc(n); }\n"
    (tmp_path / "other.c").write_text(source)
    library = tmp_path / "other.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "other.c"], check=True)
    assert printed(ANSWER, LD_PRELOAD=str(library)) == "False"


def test_other_systems(monkeypatch):
    class Musl:
        """No version of glibc."""

        mallopt = dladdr = malloc = None

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Musl())
    assert allocator.keep_freed_memory({}) is False
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.keep_freed_memory({}) is False


def test_another_value_is_refused(monkeypatch, capsys):
    with pytest.raises(ConfigError, match="RECBOLE_HLLM_MALLOC is 'off', which is neither 0 nor 1"):
        allocator.keep_freed_memory({"RECBOLE_HLLM_MALLOC": "off"})
    monkeypatch.setenv("RECBOLE_HLLM_MALLOC", "off")
    assert cli.main(["--model=Pop"]) == 2
    assert "RECBOLE_HLLM_MALLOC" in capsys.readouterr().err


# Megabytes in memory before and after 256 MiB are freed in small blocks and given back.
GIVEN_BACK = """
from recbole_hllm.allocator import give_back_freed_memory, keep_freed_memory
def resident():
    status = open("/proc/self/status").read()
    return int(status.partition("VmRSS:")[2].split()[0]) >> 10
keep_freed_memory()
blocks = [b"x" * 2**20 for _ in range(256)]
del blocks
held = resident()
give_back_freed_memory()
print(held - resident())
"""


@glibc_only
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_freed_memory_is_given_back_when_asked():
    assert int(printed(GIVEN_BACK)) > 200
