"""Two processes train as one does: every strategy in one launch, which runs all systems."""

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import engine_steps
import pytest

MODELS = ("HLLM", "SLMRec", "LEARN", "SASRec")


def run_steps(folder, runs, processes=2, **environment):
    """What ``engine_steps`` finds in each of several processes, rank by rank."""
    folder.mkdir()
    (folder / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd()), **environment}
    launch = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    command = [sys.executable, *launch, engine_steps.__file__, "out", "runs.json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"out.{rank}").read_text(encoding="utf-8")) for rank in range(processes)]


@pytest.fixture(scope="module")
def systems(settings_of, tmp_path_factory):
    """Name -> keys of HLLM, SLMRec, LEARN and SASRec without dropout, and the steps to make."""
    from recbole_hllm import run

    table = run("SASRec", config_dict=settings_of("SASRec") | {"epochs": 1}, run_dir=tmp_path_factory.mktemp("t") / "r")
    own = {
        "SLMRec": {"distillation": "online", "item_table": table["run_dir"], "lora_dropout": 0.0},
        "LEARN": {"dropout": 0.0, "sampling": "last"},
        "SASRec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},
    }
    shared = {"train_batch_size": 5, "epochs": 50}
    keys = {name: {**settings_of(name), **own.get(name, {}), **shared, "model": name} for name in MODELS}
    return {name: {"keys": of_model, "steps": 20} for name, of_model in keys.items()}


@pytest.fixture(scope="module")
def alone(systems, tmp_path_factory):
    """What one process computes."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: engine_steps.losses_of(folder=folder, **run) for name, run in systems.items()}


def check_same(found, alone):
    """That each process has found what one alone finds."""
    assert all(process.keys() == alone.keys() for process in found)
    for name, one in alone.items():
        for process in found:
            ours, theirs = process[name]["terms"], one["terms"]
            losses = [step["loss"] for step in theirs]
            assert [step["loss"] for step in ours] == pytest.approx(losses, rel=1e-5), name
            for step, expected in zip(ours, theirs, strict=True):
                known = {term for term in expected if not term.endswith("/s")}
                assert {term: step[term] for term in known} == pytest.approx(
                    {term: expected[term] for term in known}, rel=5e-3, abs=1e-5
                ), name
            assert process[name]["norms"] == pytest.approx(one["norms"], rel=1e-4, abs=1e-5), name
            assert process[name]["scores"] == pytest.approx(one["scores"], rel=1e-3, abs=1e-4), name


def test_ddp(systems, alone, tmp_path):
    runs = {name: {**run, "resumed": 9} for name, run in systems.items()}
    check_same(run_steps(tmp_path / "run", runs), alone)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
@pytest.mark.parametrize(
    "keys", [{"stage": 1}, {"stage": 2}, {"stage": 3}, {"stage": 2, "offload": True}], ids=["1", "2", "3", "offload"]
)
def test_zero(systems, alone, tmp_path, keys):
    own = {"strategy": "deepspeed", **keys}
    if keys["stage"] == 3:  # weights of toys are small enough to stay whole otherwise
        (tmp_path / "ds.json").write_text(
            json.dumps({"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 16}}), encoding="utf-8"
        )
        own["deepspeed_config"] = str(tmp_path / "ds.json")
    runs = {name: {**run, "resumed": 9, "keys": {**run["keys"], **own}} for name, run in systems.items()}
    check_same(run_steps(tmp_path / "run", runs), alone)
