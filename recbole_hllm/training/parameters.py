"""How many numbers a model is made of."""

from typing import Any


def counted(model: Any) -> dict[str, int]:
    """Of all its weights, of those that are trained, and of what is needed to recommend."""
    weights, needed = list(model.parameters()), model.inference_parameters()
    return {
        "parameters_total": max(sum(weight.numel() for weight in weights), needed),  # it may have parts of other runs
        "parameters_trained": sum(weight.numel() for weight in weights if weight.requires_grad),
        "parameters_inference": needed,
    }
