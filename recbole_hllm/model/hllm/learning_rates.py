"""Which of HLLM's weights are trained, and with which learning rate."""

from typing import Any

from torch import nn

from recbole_hllm.config.keys.hllm import HLLMKeys
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError

# Part -> how the names of its weights begin; a name is the first one's whose learning rate is given.
_PARTS = {"head": ("item_encoder.projection.", "id_part."), "item": ("item_encoder.",)}


def parameter_groups(model: nn.Module, settings: HLLMKeys) -> list[dict[str, Any]]:
    """See ``HLLM.parameter_groups``."""
    frozen = settings.item_llm_tuning == "frozen"
    rates = {"head": settings.item_head_learning_rate, "item": None if frozen else settings.item_learning_rate}
    everything_decays = "weight_decay" in referenced(settings.reference)
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        known = (part for part, names in _PARTS.items() if rates[part] is not None and name.startswith(names))
        decays = everything_decays or parameter.dim() > 1
        if parameter.requires_grad:
            groups.setdefault((next(known, "user"), decays), []).append(parameter)
    if not groups:
        raise ConfigError(
            "item_llm_tuning and user_llm_tuning: both LLMs are frozen, nothing lies between them and temperature "
            "is fixed: there is nothing to train; tune one of them, or leave temperature empty"
        )
    return [
        {"params": parameters}
        | ({"lr": rates[part]} if part in rates else {})
        | ({} if decays else {"weight_decay": 0.0})
        for (part, decays), parameters in sorted(groups.items())
    ]
