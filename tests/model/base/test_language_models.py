"""When item texts are packed."""

from types import SimpleNamespace

import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.language_models import packed
from recbole_hllm.nn.backbone import BackboneSpec, skeleton_of

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}


def llm(kind):
    return skeleton_of(BackboneSpec(None, "scratch", config={"model_type": kind, "num_key_value_heads": 1, **SIZES}))


def keys(packing, attention=None):
    return SimpleNamespace(item_packing=packing, attn_implementation=attention)


@pytest.mark.parametrize(("attention", "expected"), [
    (None, True), ("flash_attention_2", True), ("eager", False), ("sdpa", False), ("flex_attention", False),
])  # fmt: skip
def test_auto_packs_what_it_can(attention, expected):
    assert packed(keys("auto", attention), llm("llama")) is expected
    assert packed(keys("auto", attention), llm("mistral")) is False  # its attention has a window
    assert packed(keys("padded", attention), llm("llama")) is False


@pytest.mark.parametrize(("kind", "attention", "said"), [
    ("mistral", None, "attention of a mistral model"),
    ("llama", "sdpa", "attn_implementation: sdpa needs padding; leave it empty"),
])  # fmt: skip
def test_what_cannot_be_packed_is_said(kind, attention, said):
    with pytest.raises(ConfigError, match=f"item_packing: packed: {said}.*item_packing: auto"):
        packed(keys("packed", attention), llm(kind))
    assert packed(keys("packed"), llm("llama"))
