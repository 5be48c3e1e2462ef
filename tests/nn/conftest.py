"""Tiny language models with random weights."""

import pytest
import torch

from recbole_hllm.nn.backbone import BackboneSpec, load_backbone

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TINY = {
    "llama": {"model_type": "llama", "vocab_size": 40, "num_key_value_heads": 1, **SIZES},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 40,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 12,
    },
    "bert": {"model_type": "bert", "vocab_size": 40, "max_position_embeddings": 12, **SIZES},
    "roberta": {"model_type": "roberta", "vocab_size": 40, "max_position_embeddings": 14, **SIZES},
}


@pytest.fixture
def tiny():
    """(kind, attention, keys) -> a backbone from scratch; large weights, so that a wrong formula shows."""

    def make(kind, attention=None, **keys):
        torch.manual_seed(7)
        config = {**TINY[kind], "initializer_range": 0.5, **keys}
        return load_backbone(
            BackboneSpec(None, "scratch", config=config, attn_implementation=attention)
        ).eval()

    return make
