"""Tuning and dropout of every text architecture of transformers: what is chosen is what the weights and layers have."""

import pytest
import torch
from architectures import CAUSAL, ENCODERS, keys_of, sampled
from torch import nn
from transformers import CONFIG_MAPPING

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.tuning import MODES, LoraSettings, check_tuning, freeze, set_dropout, tune

ARCHITECTURES = [*CAUSAL, *ENCODERS]
# What these never train: balances of experts, and a table of sines.
FIXED = {"afmoe": "expert_bias", "ernie4_5_moe": "e_score_correction_bias", "roformer": "embed_positions"}
TOKENS = torch.arange(3, 11)[None]


def model_of(name, **keys):
    torch.manual_seed(0)
    config = {**keys_of(name, initializer_range=0.5, init_std=0.5), **keys}
    return load_backbone(BackboneSpec(None, "scratch", config=config, attn_implementation="eager"))


def adaptable(model):
    """The end of the name of a linear layer; Mamba's are no choice, since its kernels read their weights."""
    return next(key.rpartition(".")[2] for key, part in model.named_modules() if isinstance(part, nn.Linear))


@pytest.mark.parametrize("name", sampled(ARCHITECTURES, also=FIXED))
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "last"])  # which not all have: test_layers.py
def test_what_a_mode_trains_is_what_requires_a_gradient(name, mode):
    if mode == "lora":
        pytest.importorskip("peft")
    model = model_of(name)
    if mode == "lora" and not any(isinstance(part, nn.Linear) for part in model.modules()):
        pytest.skip("has no linear layers")
    tune(model, mode, LoraSettings(target_modules=[adaptable(model)]) if mode == "lora" else None)
    trained = {key for key, weight in model.named_parameters() if weight.requires_grad}
    additions = {key for key, _ in model.named_parameters() if ".lora_" in key}
    if mode == "full":
        fixed = {key for key, _ in model.named_parameters()} - trained
        assert bool(fixed) == (name in FIXED) and all(FIXED[name] in key for key in fixed)
    else:
        assert trained == additions and bool(additions) == (mode == "lora")
    check_tuning(nn.ModuleDict({"reader": model}))


@pytest.mark.parametrize("mode", MODES)
def test_a_weight_that_the_mode_does_not_mean_is_told(mode):
    if mode == "lora":
        pytest.importorskip("peft")
    for place in (0, -1):
        model = model_of("llama")
        tune(model, mode, layers=1 if mode == "last" else None)
        weight = list(model.parameters())[place]
        weight.requires_grad_(not weight.requires_grad)
        with pytest.raises(ModelError, match=f"reader: of the .* weights of this llama model .* with tuning {mode}"):
            check_tuning(nn.ModuleDict({"reader": model}))


def test_a_language_model_that_nobody_tuned_is_told():
    with pytest.raises(ModelError, match="reader.0: what of this language model is trained was never chosen"):
        check_tuning(nn.ModuleDict({"reader": nn.Sequential(model_of("llama"))}))


def test_freezing_a_module_freezes_the_language_models_in_it():
    module = nn.ModuleDict({"reader": model_of("opt"), "head": nn.Linear(2, 2)}).train()
    tune(module["reader"], "full")
    freeze(module)
    check_tuning(module)
    assert not any(weight.requires_grad for weight in module.parameters())
    reader = module["reader"]
    assert torch.equal(reader(TOKENS).last_hidden_state, reader.eval()(TOKENS).last_hidden_state)


# ---- dropout ----


def own_dropouts(name):
    """Every dropout that a configuration has, at one half; DiffLlama's is refused by transformers."""
    numbers = CONFIG_MAPPING[name.partition(":")[0]]().to_dict().items()
    own = {key: 0.5 for key, value in numbers if "drop" in key and type(value) in (int, float)}
    return {} if name == "diffllama" else own


@pytest.mark.parametrize("name", sampled(ARCHITECTURES))
@torch.no_grad()
def test_without_dropout_training_reads_as_evaluation_does(name):
    model = model_of(name, **own_dropouts(name)).train()
    stored = model.config.to_dict()
    set_dropout(model, 0.0)
    assert torch.equal(model(input_ids=TOKENS).last_hidden_state, model.eval()(input_ids=TOKENS).last_hidden_state)
    assert model.config.to_dict() == stored


@pytest.mark.parametrize("name", sampled(ARCHITECTURES, also=["diffllama", "falcon"]))
@torch.no_grad()
def test_a_dropout_is_that_of_every_layer(name):
    model = model_of(name)
    set_dropout(model, 0.25)
    layers = [part for part in model.modules() if isinstance(part, nn.Dropout)]
    assert all(layer.p == 0.25 for layer in layers)
    numbers = [(key, value) for part in model.modules() for key, value in vars(part).items() if "drop" in key]
    numbers = [(key, value) for key, value in numbers if type(value) in (int, float)]
    assert all(value == (0.0 if key == "layerdrop" else 0.25) for key, value in numbers)
    of_config = name in ("falcon", "falcon:alibi", "persimmon")
    drops = bool(layers or numbers or of_config) and name != "diffllama"  # which has the number and no use for it
    once, again = (model.train()(input_ids=TOKENS).last_hidden_state for _ in range(2))
    assert torch.equal(once, again) != drops
