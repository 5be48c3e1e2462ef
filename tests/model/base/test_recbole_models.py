"""What an import of RecBole's models does to the process: each test is one of its own."""

import subprocess
import sys

import pytest


def printed(code):
    """What a new Python process prints for ``code``."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


ALL_MODULES = """
import pkgutil, importlib, torch, recbole_hllm
for module in pkgutil.walk_packages(recbole_hllm.__path__, "recbole_hllm."):
    importlib.import_module(module.name)
"""
SHOWN = "\nprint(torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())"


@pytest.mark.parametrize(
    "code",
    [
        ALL_MODULES,
        "import torch; from recbole_hllm.registry import get_spec; get_spec('SINE')",
        "import torch, recbole_hllm.model.baselines.bert4rec",
    ],
    ids=["all modules", "SINE itself", "a repaired model"],
)
def test_anomaly_detection_stays_off(code):
    assert printed(code + "\nimport recbole.model.sequential_recommender" + SHOWN) == ["False", "True"]


@pytest.mark.parametrize("check_nan", ["True", "False"])
def test_a_user_who_wants_it_keeps_it(check_nan):
    switched_on = f"import torch; torch.autograd.set_detect_anomaly(True, {check_nan})\n"
    assert printed(switched_on + "import recbole_hllm.registry" + SHOWN) == ["True", check_nan]
