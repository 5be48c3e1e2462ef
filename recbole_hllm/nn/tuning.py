"""What of a language model is trained: all of it, low-rank additions to its linear layers (LoRA), or nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from recbole_hllm.errors import MissingExtra, ModelError

MODES = ("full", "lora", "frozen")
# Linear layers of attention and MLP under the names that transformers gives them.
_ATTENTION_AND_MLP = {
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj",  # Llama
    "query", "key", "value", "dense",  # BERT
    "c_attn", "c_fc", "c_proj",  # GPT-2
}  # fmt: skip
_ADAPTER = "default"


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


def tune(model: PreTrainedModel, mode: str, lora: LoraSettings | None = None) -> None:
    """Chooses, in place, what of a language model is trained.

    Args:
        model: as ``load_backbone`` gives it.
        mode: ``full``; ``lora``, where linear layers get additions that alone are trained and change nothing at
            first; ``frozen``, where gradients pass through and nothing is trained or dropped out.
        lora: how, for ``lora``.

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
        _drop_nothing(model)


def _drop_nothing(model: nn.Module) -> None:
    """Not by eval(): transformers recomputes activations (gradient checkpointing) in training mode only."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Llama and its relatives hand a number to the attention function.
        for name, value in vars(module).items():
            if name.endswith("dropout") and isinstance(value, float):
                setattr(module, name, 0.0)


# ---- LoRA ----


def lora_targets(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers of attention and MLP in the repeated layers, as Llama, BERT and GPT-2 types have them.

    Raises:
        ModelError: there are none, or others beside them, such as the router of experts; lists what there is.
    """
    depth = model.config.num_hidden_layers
    stacks = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    repeated = tuple(f"{name}." for name in stacks if len(model.get_submodule(name)) == depth)
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
    inject_adapter_in_model(settings, model, _ADAPTER)


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
