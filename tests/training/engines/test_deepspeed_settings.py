"""DeepSpeed's settings from the keys and from a file, without DeepSpeed."""

import json

import pytest

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.training.engines.deepspeed_settings import deepspeed_settings


@pytest.fixture
def settings(settings_of, tmp_path):
    """(content of the file or None, keys) -> what DeepSpeed gets of two processes."""

    def make(content=None, **keys):
        if content is not None:
            (tmp_path / "ds.json").write_text(content if isinstance(content, str) else json.dumps(content))
            keys["deepspeed_config"] = str(tmp_path / "ds.json")
        config = Config("SASRec", config_dict={**settings_of("SASRec"), "strategy": "deepspeed", **keys})
        return deepspeed_settings(RunKeys.of(config), 2)

    return make


def test_keys_alone(settings):
    found = settings(stage=3, offload=True, gradient_accumulation_steps=4, clip_grad_norm={"max_norm": 5})
    assert found["zero_optimization"] == {
        "stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"},
    }  # fmt: skip
    assert found["gradient_accumulation_steps"] == 4 and found["gradient_clipping"] == 5.0
    assert found["bf16"] == {"enabled": False} and found["train_micro_batch_size_per_gpu"] == 8
    assert "offload_param" not in settings(offload=True)["zero_optimization"]
    assert settings()["zero_optimization"]["stage"] == 2


def test_auto_is_filled_and_what_the_file_adds_stays(settings):
    found = settings(
        {
            "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "bf16": {"enabled": "auto"},
            "fp16": {"enabled": "auto"},
            "scheduler": "auto",
            "optimizer": {"type": "AdamW", "params": {"lr": "auto", "eps": 1e-08, "betas": "auto"}},
            "zero_optimization": {"stage": "auto", "reduce_bucket_size": "auto", "overlap_comm": True},
            "wall_clock_breakdown": True,
        },
        stage=1,
        learner="adamw",
    )
    assert found["zero_optimization"] == {"stage": 1, "overlap_comm": True} and found["wall_clock_breakdown"] is True
    assert found["bf16"] == {"enabled": False} and not {"optimizer", "scheduler", "fp16"} & found.keys()
    assert settings({"zero_optimization": {"stage": 3}})["zero_optimization"]["stage"] == 3


@pytest.mark.parametrize(
    "content, keys, message",
    [
        ({"zero_optimization": {"stage": 3}}, {"stage": 2}, "zero_optimization.stage is 3, and the keys make it 2"),
        ({"gradient_clipping": 1.0}, {}, "gradient_clipping is 1.0, and the keys make it 0.0"),
        ({"bf16": {"enabled": True}}, {}, "bf16.enabled is True, and the keys make it False"),
        ({"gradient_accumulation_steps": 2}, {}, "gradient_accumulation_steps is 2, and the keys make it 1"),
        ({"train_batch_size": 32}, {}, "train_batch_size is 32, and train_batch_size: 16"),
        ({"train_micro_batch_size_per_gpu": 16}, {}, "train_micro_batch_size_per_gpu is 16.*makes it 8"),
        ({"optimizer": {"type": "SGD"}}, {}, "optimizer.type is 'SGD', and the keys make it 'adam'"),
        ({"optimizer": {"type": "Adam", "params": {"lr": 0.5}}}, {}, "optimizer.params.lr is 0.5, and the keys"),
        (
            {"optimizer": {"type": "Adam", "params": {"betas": [0.8, 0.9]}}},
            {},
            r"optimizer.params.betas is \[0.8, 0.9\], and the keys make it \[0.9, 0.999\]",
        ),
        ({"optimizer": {"type": "SGD", "params": {"momentum": 0.9}}}, {"learner": "sgd"}, "params.momentum: the optim"),
        ({"optimizer": {"type": "SGD", "params": {"eps": 1e-8}}}, {"learner": "sgd"}, "optimizer.params.eps: the"),
        ({"zero_optimization": {"stage": "3"}}, {}, "zero_optimization.stage is '3', and there are 0, 1, 2 and 3"),
        ({"zero_optimization": {"stage": 4}}, {}, "zero_optimization.stage is 4, and there are 0, 1, 2 and 3"),
        ({"zero_optimization": {"stage": True}}, {}, "zero_optimization.stage is True, and there are 0, 1, 2 and 3"),
        ({"scheduler": {"type": "WarmupLR"}}, {}, "scheduler: use the keys scheduler and warmup_ratio"),
        ({"fp16": {"enabled": True}}, {}, "fp16: use the keys precision and weights"),
        ({"zero_optimisation": {"stage": 3}}, {}, "zero_optimisation would have no effect; write zero_optimization"),
        ({"bfloat16": {"enabled": True}}, {}, "bfloat16 would have no effect; write bf16"),
        ({"zero_optimization": 3}, {}, "zero_optimization is 3, not a section"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}},
            {"offload": True},
            "offload_optimizer.device is 'nvme', and the keys make it 'cpu'",
        ),
        ([1], {}, "is not a JSON object"),
        ("{", {}, "is missing or damaged"),
    ],
)
def test_what_contradicts_the_keys_is_refused_by_name(settings, content, keys, message):
    with pytest.raises(ConfigError, match=message):
        settings(content, **keys)


def test_a_missing_file_is_named(settings):
    with pytest.raises(ConfigError, match=r"deepspeed_config: .*nowhere.json is missing"):
        settings(deepspeed_config="nowhere.json")
