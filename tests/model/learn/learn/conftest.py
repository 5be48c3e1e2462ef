"""A small LEARN on the toy data."""

import pytest
import torch

import recbole_hllm  # noqa: F401

# isort: split
from recbole.utils import init_seed

from recbole_hllm.config.config import Config
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.model.learn.learn import LEARN

SMALL = {
    "hidden_size": 8, "n_layers": 2, "n_heads": 2, "inner_size": 16, "dropout": 0.0, "output_size": 4,
    "target_length": 3, "history_samples": None, "target_samples": None, "MAX_TEXT_LENGTH": 10,
}  # fmt: skip


@pytest.fixture
def keys_of(toy, tiny_llm, tmp_path):
    """(**keys) -> keys of a LEARN on the toy of conftest.py."""
    shared = toy()[0]
    names = ("MAX_ITEM_LIST_LENGTH", "train_batch_size", "eval_batch_size", "precision", "use_gpu", "show_progress")
    return lambda **keys: {
        "data_path": str(tmp_path), "dataset": "toy", "text_keys": ["title", "brand"], "epochs": 1,
        "item_pretrain_dir": tiny_llm("llama" if keys.get("content") == "llm" else "bert"), **SMALL,
        **{name: shared[name] for name in names}, **keys,
    }  # fmt: skip


@pytest.fixture
def build(keys_of):
    """(**keys) -> a LEARN in evaluation mode, and its first training rows."""

    def make(**keys):
        config = Config("LEARN", config_dict=keys_of(**keys))
        init_seed(config["seed"], True)
        train = data_preparation(config, create_dataset(config))[0]
        init_seed(config["seed"], True)
        return LEARN(config, train._dataset).eval(), train._dataset[torch.arange(4)]

    return make
