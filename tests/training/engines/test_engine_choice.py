"""Which engine a run has, and what is refused before any data is read."""

import importlib.util

import pytest

from recbole_hllm import processes
from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.processes import Processes
from recbole_hllm.training.engines import engine_class


@pytest.fixture
def chosen(settings_of, monkeypatch):
    """(processes, keys) -> the name of the engine's class."""

    def choose(number=1, installed=True, **keys):
        monkeypatch.undo()
        config = Config("SASRec", config_dict={**settings_of("SASRec"), **keys})
        monkeypatch.setattr(processes, "_current", Processes(0, number))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
        return engine_class(RunKeys.of(config)).__name__

    return choose


def test_the_number_of_processes_chooses(chosen):
    assert [chosen(), chosen(2)] == ["Engine", "DDPEngine"]
    assert [chosen(number, strategy="deepspeed") for number in (1, 2)] == ["DeepSpeedEngine"] * 2
    assert [chosen(strategy="ddp"), chosen(strategy="single")] == ["DDPEngine", "Engine"]


@pytest.mark.parametrize(
    "number, keys, message",
    [
        (2, {"strategy": "single"}, "strategy: single is one process, and 2 were started; take ddp or deepspeed"),
        (1, {"strategy": "dpp"}, "no strategy named 'dpp'.*ddp"),
        (1, {"stage": 4}, "stage: 4 must be at most 3"),
        (1, {"strategy": "deepspeed", "installed": False}, r"strategy: deepspeed needs the extra: pip install"),
        (1, {"strategy": "deepspeed", "precision": "fp16"}, "precision: fp16 is not for strategy: deepspeed"),
        (
            1,
            {"strategy": "deepspeed", "clip_grad_norm": {"max_norm": 1, "norm_type": 1}},
            "clip_grad_norm: norm_type 1 is not for strategy: deepspeed",
        ),
        (
            1,
            {"strategy": "deepspeed", "stage": 0, "weights": "bf16", "precision": "bf16"},
            "weights: bf16 is not for stage: 0",
        ),
        (1, {"weights": "bf16", "precision": "fp32"}, "weights: bf16 is for precision: bf16"),
        (1, {"stage": 2}, "stage: 2 is of strategy: deepspeed"),
        (2, {"offload": True}, "offload: True is of strategy: deepspeed"),
        (2, {"deepspeed_config": "a.json", "strategy": "ddp"}, "deepspeed_config: a.json is of strategy: deepspeed"),
    ],
)
def test_what_cannot_be_is_refused(chosen, number, keys, message):
    with pytest.raises(ConfigError, match=message):
        chosen(number, **keys)
