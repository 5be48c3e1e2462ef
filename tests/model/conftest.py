"""HLLM on a toy data set with two tiny language models."""

from pathlib import Path

import pytest
import torch

from recbole_hllm.config.config import Config
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.model.hllm.hllm import HLLM
from recbole_hllm.runs.run import run

N_ITEMS = 12
HISTORY = 4
# every user's items, in time order
SEQUENCES = [[(3 * user + step * (user + 2)) % N_ITEMS for step in range(4 + user % 5)] for user in range(10)]
SMALL_LLM = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT_HEADER = "item_id:token\ttitle:token_seq\tbrand:token_seq\tprice:float"


def text_rows():
    return [(f"i{item}", f"w{item} w{2 * item} " * (item % 4), f"w{item + 5}", item) for item in range(N_ITEMS)]


@pytest.fixture
def toy(tmp_path, write_dataset, tiny_llm):
    """(**keys of the config) -> config, dataset, loaders of a toy data set with two tiny language models."""
    rows = [(f"u{user}", f"i{item}", time) for user, items in enumerate(SEQUENCES) for time, item in enumerate(items)]
    write_dataset(tmp_path, "toy", rows, items=(TEXT_HEADER, text_rows()))

    def make(**keys):
        settings = {
            "data_path": str(tmp_path),
            "item_pretrain_dir": keys.get("item_pretrain_dir") or tiny_llm("llama"),
            "user_pretrain_dir": tiny_llm("llama"),
            "user_llm_init": True,
            "text_keys": ["title", "brand"],
            "MAX_TEXT_LENGTH": 10,
            "MAX_ITEM_LIST_LENGTH": HISTORY,
            "num_negatives": 6,
            "item_chunk_tokens": 30,
            "train_batch_size": 4,
            "eval_batch_size": 4,
            "precision": "fp32",
            "use_gpu": False,
            "show_progress": False,
        }
        config = Config("HLLM", "toy", config_dict={**settings, **keys})
        dataset = create_dataset(config)
        return config, dataset, data_preparation(config, dataset)

    return make


@pytest.fixture
def official_names():
    """(state of a model of two Llamas, number to add) -> its weights under the official code's names."""
    prefixes = {"item_encoder.backbone": "item_llm.model", "user_encoder.backbone": "user_llm.model"}

    def make(state, added):
        weights = {}
        for name, weight in state.items():
            for ours, theirs in prefixes.items():
                name = name.replace(ours, theirs)
            weights[name.removeprefix("item_encoder.")] = weight + added
        return weights

    return make


@pytest.fixture
def build(toy):
    """(**keys) -> HLLM and its loaders."""

    def make(**keys):
        config, _, loaders = toy(**keys)
        torch.manual_seed(0)
        return HLLM(config, loaders[0]._dataset), loaders

    return make


@pytest.fixture
def settings(toy):
    """(**keys) -> all keys of a short run."""
    short = {"epochs": 2, "learning_rate": 0.01, "item_learning_rate": 0.01, "state": "warning", "topk": [1, 5]}
    short |= {"metrics": ["Recall", "NDCG"], "valid_metric": "NDCG@5", "metric_decimal_place": 10}
    return lambda **keys: toy(**short, **keys)[0].settings


@pytest.fixture
def finished(settings, tmp_path):
    """(**keys) -> folder of a finished run."""
    return lambda **keys: Path(run(config_dict=settings(**keys), run_dir=tmp_path / "run")["run_dir"])


@pytest.fixture
def id_model(tmp_path, write_dataset):
    """(model name, **keys) -> a model that knows items by id only, and its loaders; users' n-th item has the time n."""
    rows = [(f"u{user}", f"i{item}", time) for user, items in enumerate(SEQUENCES) for time, item in enumerate(items)]
    write_dataset(tmp_path, "ids", rows)

    def make(name, **keys):
        settings = {
            "data_path": str(tmp_path), "MAX_ITEM_LIST_LENGTH": HISTORY, "num_negatives": 6, "train_batch_size": 4,
            "eval_batch_size": 4, "use_gpu": False, "show_progress": False, "hidden_size": 8, "inner_size": 16,
            "item_embed_dim": 8, "user_llm_config": {"model_type": "llama", "vocab_size": 8, **SMALL_LLM},
            "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0,
        }  # fmt: skip
        config = Config(name, "ids", config_dict={**settings, **keys})
        loaders = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return config.spec.model(config, loaders[0]._dataset), loaders

    return make
