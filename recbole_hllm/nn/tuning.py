"""What of a language model is trained: all of it, its last layers, low-rank additions to its linear layers (LoRA), or
nothing."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from recbole_hllm.errors import MissingExtra, ModelError
from recbole_hllm.nn.layers import last_layers

MODES = ("full", "lora", "frozen", "last")
# Linear layers of attention and MLP under the names that transformers gives them.
_ATTENTION_AND_MLP = {
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj",  # Llama
    "query", "key", "value", "dense",  # BERT
    "c_attn", "c_fc", "c_proj",  # GPT-2
}  # fmt: skip
_ADAPTER = "default"
# Where a language model keeps the mode that it was tuned in, and how many layers that trains.
_CHOSEN, _LAYERS = "tuning_mode", "layers_trained"


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adaptation (LoRA, arXiv 2106.09685): a linear layer's W becomes W + alpha / r * B A.

    Args:
        r: rank, the number of rows of A and columns of B.
        alpha: scale of the addition.
        dropout: of the addition's input, in training.
        target_modules: names of linear layers, or how they end; empty: those of attention and MLP in every layer.
    """

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: Sequence[str] = ()


def tune(model: PreTrainedModel, mode: str, lora: LoraSettings | None = None, layers: int | None = None) -> None:
    """Chooses, in place, what of a language model is trained.

    Args:
        model: as ``load_backbone`` gives it.
        mode: ``full``; ``lora``, where linear layers get additions that alone are trained and change nothing at
            first; ``frozen``, where gradients pass through and nothing is trained or dropped out; ``last``, where only
            the last layers are trained.
        lora: how, for ``lora``.
        layers: how many, for ``last``.

    Raises:
        ModelError: another mode; LoRA finds no linear layers that it knows, or none of those named.
        MissingExtra: LoRA without peft.
    """
    if mode not in MODES:
        raise ModelError(f"tuning mode {mode!r} is not one of {', '.join(MODES)}")
    if mode == "lora":
        _add_lora(model, lora or LoraSettings())
    elif mode == "frozen":
        model.requires_grad_(False)
        set_dropout(model, 0.0)
    elif mode == "last":
        model.requires_grad_(False)
        last_layers(model, layers or 0).requires_grad_(True)
        setattr(model, _LAYERS, layers)
    setattr(model, _CHOSEN, mode)


def freeze(module: nn.Module) -> None:
    """Nothing in a module is trained, and nothing of the language models in it dropped out, however they were tuned."""
    module.requires_grad_(False)
    for _, llm in _language_models(module):
        tune(llm, "frozen")


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Gives all layers of a language model one dropout, in training; none is left out whole (LayerDrop).

    Not by eval(), for 0: transformers recomputes activations (gradient checkpointing) in training mode only. What the
    model is saved with stays as it was.
    """
    configs: dict[int, PreTrainedConfig] = {}
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = probability
        _set_numbers(module, probability)  # Llama and its relatives hand a number to the attention function
        if module is not model and isinstance(config := vars(module).get("config"), PreTrainedConfig):
            if id(config) not in configs:  # Falcon's layers look it up there
                configs[id(config)] = copy.copy(config)
                _set_numbers(configs[id(config)], probability)
            vars(module)["config"] = configs[id(config)]


def _set_numbers(holder: nn.Module | PreTrainedConfig, probability: float) -> None:
    for name, value in list(vars(holder).items()):
        if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(holder, name, 0.0 if "layerdrop" in name else probability)


# ---- whether it is so ----


def check_tuning(module: nn.Module) -> None:
    """For a recommender that has been built.

    Raises:
        ModelError: of a language model in it, what is trained is not what was chosen; or nobody has chosen.
    """
    for name, llm in _language_models(module):
        mode, weights = getattr(llm, _CHOSEN, None), dict(llm.named_parameters())
        if mode is None:
            raise ModelError(f"{name}: what of this language model is trained was never chosen")
        trained = {key for key, weight in weights.items() if weight.requires_grad}
        added = {key for key in weights if ".lora_" in key}
        expected = {"full": weights.keys() - added, "lora": added, "frozen": set(), "last": _of_last(llm)}[mode]
        missing = expected - trained
        if trained - expected or (missing and (mode == "lora" or missing - _fixed(llm))):
            raise ModelError(
                f"{name}: of the {len(weights)} weights of this {llm.config.model_type} model {len(trained)} are "
                f"trained, and {len(expected)} would be with tuning {mode}"
            )


def _language_models(module: nn.Module, name: str = "") -> Iterator[tuple[str, PreTrainedModel]]:
    """Names and language models in a module; what lies in one belongs to it."""
    if isinstance(module, PreTrainedModel):
        yield name, module
        return
    for part, child in module.named_children():
        yield from _language_models(child, f"{name}.{part}" if name else part)


def _of_last(llm: PreTrainedModel) -> set[str]:
    """Names of the weights of the layers that ``last`` trains."""
    layers = getattr(llm, _LAYERS, None)
    own = {id(weight) for weight in last_layers(llm, layers).parameters()} if layers else set()
    return {key for key, weight in llm.named_parameters() if id(weight) in own}


def _fixed(llm: PreTrainedModel) -> set[str]:
    """Names of weights that an architecture never trains, such as tables of sines."""
    with torch.device("meta"):
        return {key for key, weight in type(llm)(llm.config).named_parameters() if not weight.requires_grad}


# ---- LoRA ----


def lora_targets(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers of attention and MLP in the repeated layers, as Llama, BERT and GPT-2 types have them.

    Raises:
        ModelError: there are none, or others beside them, such as the router of experts; lists what there is.
    """
    depth = model.config.num_hidden_layers
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    repeated = tuple(f"{name}." for name, stack in stacks.items() if len(stack) == depth)
    found = [name for name in _linear_layers(model) if name.startswith(repeated)]
    unknown = {name.rpartition(".")[2] for name in found} - _ATTENTION_AND_MLP
    if unknown or not found:
        problem = f"are {', '.join(sorted(unknown))}" if unknown else "is none of them"
        raise ModelError(
            "LoRA knows the linear layers of attention and MLP of Llama, BERT and GPT-2 types; in the layers of this "
            f"{model.config.model_type} model there {problem}. Name those to adapt in lora_target_modules: "
            f"{_listed(model)}"
        )
    return found


def _linear_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]


def _listed(model: nn.Module) -> str:
    """The last parts of the names of a model's linear layers."""
    ends = dict.fromkeys(name.rpartition(".")[2] for name in _linear_layers(model))
    return f"its linear layers are {', '.join(ends)}" if ends else "it has no linear layers"


def _add_lora(model: PreTrainedModel, lora: LoraSettings) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtra("peft", "peft", "LoRA") from error
    linear = _linear_layers(model)
    for target in lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise ModelError(f"lora_target_modules: no linear layer is called '{target}'; {_listed(model)}")
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or lora_targets(model),
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in linear),
    )
    try:
        inject_adapter_in_model(settings, model, _ADAPTER)
    except ValueError as error:  # peft knows layers that cannot have it, such as Mamba's out_proj
        raise ModelError(f"lora_target_modules: {error}") from error


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of a language model as if it had been tuned in full: LoRA's additions are in the weights.

    One tensor at a time, so that a large model need not be held twice. Without LoRA, its state.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, weight in model.state_dict().items():
        owner, base, kind = name.rpartition(".base_layer.")
        if base and owner in adapted:
            addition = adapted[owner].get_delta_weight(_ADAPTER) if kind == "weight" else 0
            yield f"{owner}.{kind}", (weight + addition).detach()
        elif ".lora_" not in name:
            yield name, weight
