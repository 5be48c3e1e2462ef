"""The precision that language models compute in."""

import torch


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """A context in which matrix products are of the given type; None: as the weights are."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
