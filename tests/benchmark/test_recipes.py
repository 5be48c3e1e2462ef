"""Every recipe builds, at its full size, without memory for its weights."""

import json
from pathlib import Path

import pytest

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.benchmark.plan import meta_model

RECIPES = sorted((Path(__file__).parents[2] / "properties" / "recipes").glob("*.yaml"))
# The architectures of the models that the recipes name, as Llamas: Baichuan2-7B differs from one in its code only.
SIZES = {
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": {
        "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
        "num_key_value_heads": 4, "vocab_size": 32000,
    },
    "baichuan-inc/Baichuan2-7B-Base": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 125696,
    },
}  # fmt: skip


def body(hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, vocab_size):
    """Weights of a Llama without word embeddings and head, counted from its description."""
    keys_and_values = 2 * hidden_size * (hidden_size // num_attention_heads) * num_key_value_heads
    layer = 2 * hidden_size**2 + keys_and_values + 3 * hidden_size * intermediate_size + 2 * hidden_size
    return num_hidden_layers * layer + hidden_size


def test_there_are_recipes():
    assert len(RECIPES) == 5


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds_with_the_size_it_says(recipe, tiny_llm, settings_of, tmp_path):
    named = Config("HLLM", "toy", [recipe], {"data_path": settings_of("HLLM")["data_path"]})["item_pretrain_dir"]
    llm = Path(tiny_llm("llama"))
    described = json.loads((llm / "config.json").read_text()) | SIZES[named]
    described.pop("head_dim", None)
    (llm / "config.json").write_text(json.dumps(described))
    keys = {
        "data_path": settings_of("HLLM")["data_path"], "item_pretrain_dir": str(llm), "user_pretrain_dir": str(llm),
        "text_keys": ["title"], "attn_implementation": "sdpa", "use_gpu": False, "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    config = Config("HLLM", "toy", [recipe], keys)
    train, *_ = data_preparation(config, create_dataset(config))
    model = meta_model(config, train)
    sizes = SIZES[named]
    words = sizes["vocab_size"] * sizes["hidden_size"]
    assert sum(p.numel() for p in model.item_encoder.parameters()) == body(**sizes) + words + sizes["hidden_size"]
    assert sum(p.numel() for p in model.user_encoder.parameters()) == body(**sizes)
    assert all(p.is_meta for p in model.parameters())
    rows = next(iter(train))
    negatives = config["num_negatives"] or len(rows) * (config["MAX_ITEM_LIST_LENGTH"] + 1)
    assert rows["neg_item_id"].shape == (1, negatives)
    assert model.item_encoder.item_emb_tokens.shape == (1, 1, sizes["hidden_size"])
