"""Style, docstrings of public names, and types: what ``make lint`` finds is found here too."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("checker", [("ruff", "check", "."), ("mypy",)], ids=["style", "types"])
def test_nothing_is_found(checker):
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-m", *checker], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
