"""Vectors of items in fewer bytes: bfloat16, or int8 with a scale for each row."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recbole_hllm.errors import ConfigError

DTYPES = ("float32", "bfloat16", "int8")
_STEPS = 127  # of an int8, to each side


def packed(name: str, vectors: Tensor, dtype: str) -> dict[str, Tensor]:
    """Arrays that hold vectors.

    Args:
        name: of the first array; int8 has another one, ``<name>.scale`` (N, 1) float32.
        vectors: (N, W).
        dtype: one of `DTYPES`.

    Raises:
        ConfigError: another dtype.
    """
    vectors = vectors.detach().cpu().float()
    if dtype == "float32":
        return {name: vectors.contiguous()}
    if dtype == "bfloat16":
        return {name: vectors.to(torch.bfloat16).contiguous()}
    if dtype == "int8":
        scale = (vectors.abs().amax(dim=1, keepdim=True) / _STEPS).clamp(min=torch.finfo(torch.float32).tiny)
        return {name: (vectors / scale).round().to(torch.int8), f"{name}.scale": scale}
    raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")


def unpacked(name: str, arrays: Mapping[str, Tensor]) -> Tensor:
    """(N, W) float32 vectors that ``packed`` made arrays of."""
    scale = arrays.get(f"{name}.scale")
    vectors = arrays[name].float()
    return vectors if scale is None else vectors * scale
