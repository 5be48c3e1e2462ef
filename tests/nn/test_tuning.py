import builtins

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from recbole_hllm.errors import MissingExtra, ModelError
from recbole_hllm.nn.tuning import LoraSettings, lora_targets, merged_weights, tune

HIDDEN, INNER, LAYERS = 16, 24, 2
SIZES = {
    "vocab_size": 30, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
    "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
    "mistral": MistralConfig(**SIZES, num_key_value_heads=2),
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "gpt2": GPT2Config(vocab_size=30, n_embd=HIDDEN, n_layer=LAYERS, n_head=2, bos_token_id=0, eos_token_id=0),
}
LLAMA_LAYER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BERT_LAYER = ["query", "key", "value", "dense", "dense", "dense"]
LAYER = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral"), LLAMA_LAYER),
    "bert": BERT_LAYER,
    "roberta": BERT_LAYER,
    "gpt2": ["c_attn", "c_proj", "c_fc", "c_proj"],
}


def model_of(kind):
    torch.manual_seed(3)
    return AutoModel.from_config(CONFIGS[kind])


def randomise_lora(model):
    """Additions start at zero; now they are not."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)


def output(model, inputs):
    return model(inputs_embeds=inputs).last_hidden_state


INPUTS = torch.randn(3, 5, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", CONFIGS)
def test_targets_are_all_of_attention_and_mlp(kind):
    targets = lora_targets(model_of(kind))
    assert sorted(name.rpartition(".")[2] for name in targets) == sorted(LAYER[kind] * LAYERS)
    assert len(set(targets)) == len(targets)


@pytest.mark.parametrize("kind", CONFIGS)
def test_lora_starts_as_the_model_and_merges_to_equal_outputs(kind):
    model = model_of(kind).eval()
    before, state = output(model, INPUTS), {name: weight.clone() for name, weight in model.state_dict().items()}
    tune(model, "lora", LoraSettings(r=3, alpha=5))
    torch.testing.assert_close(output(model.eval(), INPUTS), before, atol=1e-6, rtol=0)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if ".lora_" in name
    }

    randomise_lora(model)
    changed, merged = output(model, INPUTS), dict(merged_weights(model))
    assert not torch.allclose(changed, before, atol=1e-2)
    assert merged.keys() == state.keys()
    differing = {name for name, weight in merged.items() if not torch.equal(weight, state[name])}
    assert len(differing) == len(LAYER[kind] * LAYERS)
    plain = model_of(kind).eval()
    plain.load_state_dict(merged)
    torch.testing.assert_close(output(plain, INPUTS), changed, atol=1e-5, rtol=1e-5)


def test_lora_is_the_formula_of_its_paper():
    model, r, alpha = model_of("llama"), 3, 5.0
    name = "layers.1.mlp.down_proj"
    weight = model.get_submodule(name).weight.clone()
    tune(model, "lora", LoraSettings(r=r, alpha=alpha))
    randomise_lora(model)
    layer = model.get_submodule(name)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (r, INNER) and b.shape == (HIDDEN, r)
    torch.testing.assert_close(dict(merged_weights(model))[f"{name}.weight"], weight + alpha / r * b @ a)


def test_weights_without_lora_are_the_state():
    model = model_of("bert")
    merged, state = dict(merged_weights(model)), model.state_dict()
    assert merged.keys() == state.keys() and all(torch.equal(merged[name], state[name]) for name in state)


def test_dropout_of_lora_is_for_training():
    model = model_of("llama")
    tune(model, "lora", LoraSettings(dropout=0.5))
    randomise_lora(model)
    model.train()
    assert not torch.equal(output(model, INPUTS), output(model, INPUTS))
    model.eval()
    assert torch.equal(output(model, INPUTS), output(model, INPUTS))


def test_named_targets_alone_are_adapted():
    model = model_of("llama")
    tune(model, "lora", LoraSettings(target_modules=("q_proj", "layers.1.mlp.up_proj")))
    trained = {name.split(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "layers.1.mlp.up_proj"}


def test_unknown_target_lists_the_linear_layers():
    with pytest.raises(ModelError, match="lora_target_modules: no linear layer is called 'q_prj'.*q_proj, k_proj"):
        tune(model_of("llama"), "lora", LoraSettings(target_modules=("q_proj", "q_prj")))


SPECIAL = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "cls_token_id": 0, "sep_token_id": 0}


@pytest.mark.parametrize(
    ("config", "listed"),
    [(ModernBertConfig(**SIZES, **SPECIAL), "Wqkv, Wo, Wi"), (AlbertConfig(**SIZES, embedding_size=8), "query, key")],
    ids=["other names", "no repeated layers"],
)
def test_unknown_architecture_lists_the_linear_layers(config, listed):
    with pytest.raises(ModelError, match=f"{config.model_type} model.*lora_target_modules.*{listed}"):
        tune(AutoModel.from_config(config), "lora")
    if config.model_type == "modernbert":
        tune(AutoModel.from_config(config), "lora", LoraSettings(target_modules=("Wqkv",)))


def test_lora_without_peft_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without_peft(name, *arguments):
        if name == "peft":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(MissingExtra, match=r"LoRA needs the package 'peft': pip install 'recbole-hllm\[peft\]'"):
        tune(model_of("llama"), "lora")
    tune(model_of("llama"), "frozen")


@pytest.mark.parametrize("kind", ["gpt2", "bert", "llama"])
def test_frozen_passes_gradients_on_and_drops_nothing(kind):
    model = model_of(kind)
    if kind == "llama":
        for layer in model.layers:
            layer.self_attn.attention_dropout = 0.5
    inputs = INPUTS.clone().requires_grad_()
    assert not torch.equal(output(model.train(), inputs), output(model, inputs))
    tune(model, "frozen")
    training = output(model.train(), inputs)
    assert torch.equal(training, output(model, inputs))
    torch.testing.assert_close(training, output(model.eval(), inputs))
    training.square().sum().backward()
    assert inputs.grad.abs().sum() > 0 and all(p.grad is None for p in model.parameters())


def test_full_leaves_the_model_alone():
    model = model_of("bert")
    tune(model, "full")
    assert all(p.requires_grad for p in model.parameters()) and model.encoder.layer[0].output.dropout.p == 0.1


def test_unknown_mode():
    with pytest.raises(ModelError, match="'half' is not one of full, lora, frozen"):
        tune(model_of("llama"), "half")
