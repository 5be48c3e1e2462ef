"""The program kills runs for good, and finds them equal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"
TINY_LLM = {"item_llm_tuning": "lora", "lora_dropout": 0.3, "train_batch_size": 4}


@pytest.mark.parametrize("name, signal, keys", [
    ("SASRec", "KILL", {"hidden_dropout_prob": 0.4, "train_batch_size": 8}), ("HLLM", "KILL", TINY_LLM),
    ("SASRec", "TERM", {"gradient_accumulation_steps": 2, "train_batch_size": 8}),
])  # fmt: skip
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_runs_that_are_killed_are_equal(settings_of, tmp_path, name, signal, keys):
    keys = {**settings_of(name), "save_every_steps": 2, "epochs": 9, "max_steps": 40, **keys}
    keys = {**keys, "eval_every_steps": 7, "user_llm_config": json.dumps(keys.get("user_llm_config"))}
    if name != "HLLM":
        del keys["user_llm_config"]
    words = [f"--{key}={value}" for key, value in keys.items()]
    command = [sys.executable, PROGRAM, "--model", name, "--signal", signal, "--kills", "4", "--each", "4"]
    subprocess.run([*command, "--json", tmp_path / "found.json", *words], check=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["kills"] == 4 and found["equal"] == found["runs"] >= 1
