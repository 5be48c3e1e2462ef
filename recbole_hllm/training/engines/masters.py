"""Weights in bf16, and the same in float32, which are stepped in their place: a step is often below bf16's rounding."""

import torch
from torch import Tensor, nn


class Masters:
    """The float32 weights behind those of a model's linear layers, which are bf16 from now on.

    All other weights, such as tables, norms and a temperature, stay as they are. Frozen ones need no masters.

    Args:
        model: its linear layers are changed.
        optimizer: steps the masters from now on; it has made no step yet.

    Attributes:
        pairs: (weight in bf16, its master) of each that is trained.
        stepped: all that the optimizer steps.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        halved = halved_weights(model)
        masters = {weight: nn.Parameter(weight.data) for weight in halved if weight.requires_grad}
        for group in optimizer.param_groups:
            group["params"] = [masters.get(weight, weight) for weight in group["params"]]
        for weight in halved:
            weight.data = weight.data.bfloat16()
        self.pairs = list(masters.items())
        self.stepped: list[Tensor] = [weight for group in optimizer.param_groups for weight in group["params"]]

    def take_gradients(self) -> None:
        """Adds the gradients of the weights, which have none then, to those of the masters."""
        for weight, master in self.pairs:
            if weight.grad is not None:
                own = weight.grad.float()
                master.grad = own if master.grad is None else master.grad.add_(own)
                weight.grad = None

    @torch.no_grad()
    def write_back(self) -> None:
        """The weights are the masters, rounded."""
        for weight, master in self.pairs:
            weight.copy_(master)

    def show(self) -> None:
        """The model has the masters in place of its weights, until ``hide``; what is loaded then is theirs."""
        for weight, master in self.pairs:
            weight.data = master.data

    def hide(self) -> None:
        """Ends ``show``."""
        for weight, master in self.pairs:
            weight.data = master.data.bfloat16()



def halved_weights(model: nn.Module) -> list[Tensor]:
    """The float32 weights of linear layers, without those that a table or another layer has, too."""
    linear = {module.weight: None for module in model.modules() if isinstance(module, nn.Linear)}
    others = {
        weight
        for module in model.modules()
        if not isinstance(module, nn.Linear)
        for weight in module.parameters(recurse=False)
    }
    return [weight for weight in linear if weight not in others and weight.dtype == torch.float32]
