"""The precision that language models compute in."""

import torch
from torch import Tensor, nn


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """A context in which matrix products are of the given type; None: as the weights are."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def unrounded(vectors: Tensor, model: nn.Module) -> Tensor:
    """Vectors in the type of a model's norms, for its first layer: every layer adds to what it reads, and sums that are
    kept in bf16 lose what is small. Under autocast, and with linear layers in bf16, only products of matrices are meant
    to be rounded."""
    modules = (module for module in model.modules() if not isinstance(module, nn.Linear))
    others = (weight for module in modules for weight in module.parameters(recurse=False))
    return vectors.to(next(others, next(model.parameters())).dtype)
