"""How many numbers a model is made of."""

from typing import Any

from recbole.utils import ModelType


def counted(model: Any) -> dict[str, int]:
    """Of all its weights, of those that are trained, and of what is needed to recommend."""
    weights, needed = list(model.parameters()), model.inference_parameters()
    counts = model.type == ModelType.TRADITIONAL  # its one weight is there for the optimizer, and stays
    return {
        "parameters_total": max(sum(weight.numel() for weight in weights), needed),  # it may have parts of other runs
        "parameters_trained": 0 if counts else sum(weight.numel() for weight in weights if weight.requires_grad),
        "parameters_inference": needed,
    }
