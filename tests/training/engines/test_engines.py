"""Two processes train as one does: every strategy in one launch, which runs all systems."""

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import engine_steps
import pytest
from launched import free_port, launch_well

from recbole_hllm import run
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.slmrec import e4srec
from recbole_hllm.nn import losses

MODELS = ("HLLM", "SLMRec", "LEARN", "SASRec")
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


def run_steps(folder, runs):
    """What ``engine_steps`` finds in each of two processes, rank by rank."""
    launch_well(engine_steps.write_all, folder / "out", runs)
    return [json.loads((folder / f"out.{rank}").read_text(encoding="utf-8")) for rank in range(2)]


def run_steps_by_torchrun(folder, runs):
    """The same, as a user starts it."""
    (folder / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    command = [sys.executable, *torchrun, engine_steps.__file__, "out", "runs.json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"out.{rank}").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.fixture(scope="module")
def systems(settings_of, tmp_path_factory):
    """Name -> keys of HLLM, SLMRec, LEARN and SASRec without dropout, and the steps to make."""
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
    return {name: engine_steps.losses_of(folder=folder / name, **system) for name, system in systems.items()}


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
    runs = {name: {**system, "resumed": 9} for name, system in systems.items()}
    check_same(run_steps_by_torchrun(tmp_path, runs), alone)


def zero_keys(folder, **keys):
    """Keys of DeepSpeed; with stage 3 its small weights are shared out, too, which stay whole otherwise."""
    if keys["stage"] == 3:
        file = folder / "ds.json"
        file.write_text(json.dumps({"zero_optimization": {"stage3_param_persistence_threshold": 0}}), encoding="utf-8")
        keys["deepspeed_config"] = str(file)
    return {"strategy": "deepspeed", **keys}


@needs_deepspeed
@pytest.mark.parametrize(
    "keys", [{"stage": 1}, {"stage": 2}, {"stage": 3}, {"stage": 2, "offload": True}], ids=["1", "2", "3", "offload"]
)
def test_zero(systems, alone, tmp_path, monkeypatch, keys):
    if keys["stage"] == 3:  # positions of SLMRec are compared some at a time: as many times as a process has them
        monkeypatch.setattr(e4srec, "MAX_LOGITS", 36)
    own = zero_keys(tmp_path, **keys)
    runs = {name: {**one, "resumed": 9, "keys": {**one["keys"], **own}} for name, one in systems.items()}
    check_same(run_steps(tmp_path, runs), alone)


@needs_deepspeed
def test_weights_in_bf16_and_a_temperature_over_its_bound(systems, tmp_path, monkeypatch):
    """The temperature is what torch's DDP makes it: float32, and brought back where it is stepped."""
    monkeypatch.setattr(losses, "MAX_LOGIT_SCALE", 2.6)  # 0.006 from the next number of bf16, and below the first value
    keys = {**systems["HLLM"]["keys"], "precision": "bf16", "weights": "bf16", "learning_rate": 5e-4}
    engines = {"ddp": {}, **{str(stage): zero_keys(tmp_path, stage=stage) for stage in (1, 2, 3)}}
    found = run_steps(tmp_path, {name: {"keys": {**keys, **own}, "steps": 20} for name, own in engines.items()})
    expected = columns_of(found[0]["ddp"])
    assert max(expected["logit_scale"]) == expected["logit_scale"][0] == pytest.approx(math.exp(2.6), rel=1e-6)
    for name in engines:
        for process in found:
            ours = columns_of(process[name])
            assert ours["logit_scale"] == pytest.approx(expected["logit_scale"], rel=5e-4), name
            if name != "ddp":  # norms and tables are rounded, too, and small steps of theirs are not seen at once
                assert ours["loss"] == pytest.approx(columns_of(found[0]["1"])["loss"], rel=5e-3), name
                assert ours["loss"] == pytest.approx(expected["loss"], rel=0.25), name


def columns_of(steps):
    return {name: [step[name] for step in steps["terms"]] for name in ("loss", "logit_scale")}


@needs_deepspeed
def test_what_deepspeed_refuses_is_an_error_of_its_file(settings_of, tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stge": 3}}), encoding="utf-8")
    keys = settings_of("SASRec") | {"strategy": "deepspeed", "deepspeed_config": str(tmp_path / "ds.json")}
    launch_well(refused, keys, tmp_path / "run", world_size=1)


def refused(keys, folder):  # in a process of its own, since DeepSpeed's group stays in the one that began it
    with pytest.raises(ConfigError, match="(?s)deepspeed_config: DeepSpeed refuses it: .*DeepSpeedZeroConfig.*stge"):
        run("SASRec", config_dict=keys, run_dir=folder)


@needs_deepspeed
def test_costs_count_the_weights_of_all_processes(settings_of, tmp_path):
    keys = settings_of("HLLM") | {"epochs": 1}
    run("HLLM", config_dict=keys, run_dir=tmp_path / "one")
    launch_well(run_one, keys | zero_keys(tmp_path, stage=3), tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "costs.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    names = ("parameters_total", "parameters_trained", "parameters_inference")
    assert [two[name] for name in names] == [one[name] for name in names] and one["parameters_trained"] > 0


def run_one(keys, folder):
    run("HLLM", config_dict=keys, run_dir=folder)
