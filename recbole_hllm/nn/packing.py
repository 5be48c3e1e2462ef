"""Attention over texts that lie one after the other without padding: nothing is computed that is not read.

transformers calls an attention function by its name, so a language model that takes one is packed as it is: its linear
layers and norms read (1, T, H) states of T real tokens, and `packed_attention` keeps the texts apart.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel

PACKED = "recbole_hllm_packed"
FLASH = "flash_attention_2"
_HALF = (torch.bfloat16, torch.float16)
# Of flash attention's kernels: the first GPUs, and how many numbers a head may have: multiples, up to the most.
_FLASH_CAPABILITY, _FLASH_MULTIPLE, _FLASH_MOST = (8, 0), 8, 256
# What changes attention's formula, or its mask, in a way that is not known here.
_UNKNOWN = ("softcap", "s_aux", "position_bias", "sliding_window", "head_mask", "past_key_values", "cache")


def _torchs_varlen() -> Callable[..., Any] | None:
    """torch's flash attention of texts of any lengths; None where torch is older and has none, or one of less."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    needed = {"scale", "window_size", "enable_gqa"}
    return varlen_attn if needed <= inspect.signature(varlen_attn).parameters.keys() else None


varlen_attn = _torchs_varlen()


@dataclass(frozen=True)
class Packing:
    """Where each of N texts lies among T tokens."""

    bounds: Tensor
    """(N + 1,) int32: text n is at ``bounds[n]:bounds[n + 1]``."""
    runs: tuple[tuple[int, int], ...]
    """Numbers of texts and their length, for neighbours of equal length: few where texts are sorted by length."""

    @classmethod
    def of(cls, lengths: Tensor) -> "Packing":
        """Args: lengths: (N,) tokens of each text, N and all of them at least 1."""
        values, counts = torch.unique_consecutive(lengths, return_counts=True)
        bounds = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        return cls(bounds, tuple(zip(counts.tolist(), values.tolist(), strict=True)))

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(length for _, length in self.runs)

    def options(self, model: PreTrainedModel) -> dict[str, Any]:
        """What a model's attention function has to be told, as arguments of the model."""
        if model.config._attn_implementation == PACKED:
            return {"packing": self}
        return {
            "cu_seq_lens_q": self.bounds,
            "cu_seq_lens_k": self.bounds,
            "max_length_q": self.longest,
            "max_length_k": self.longest,
        }


def pack(model: PreTrainedModel) -> None:
    """Lets a model read packed texts from now on, and nothing else, but for flash attention, which reads both."""
    if model.config._attn_implementation == FLASH:
        return
    for part in model.modules():  # layers may have configurations of their own, with another dropout say
        config = getattr(part, "config", None)
        if isinstance(config, PreTrainedConfig):
            config._attn_implementation = PACKED


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' `AttentionInterface` within each text.

    Args:
        module: the layer; its ``is_causal`` is taken where that argument is None.
        query: (1, A, T, E) of T tokens in A heads.
        key, value: the same, of a divisor of A heads.
        attention_mask: None, since nothing is padded; or without packing (n, 1, L, L), which is added to the products.
        packing: where the texts lie; None: the first dimension is n texts of equal length, as where one is tried.
        scaling: of the products; None: 1 / sqrt(E).
        dropout: share of the weights that is dropped.
        is_causal: whether a token sees only those before it and itself.
        options: what else a layer says of itself.

    Returns:
        (1, T, A, E), and no attention weights.

    Raises:
        NotImplementedError: the model's attention is another: with a window, a cap, or biases.
    """
    other = [name for name in _UNKNOWN if options.get(name) is not None]
    if other or packing is not None and attention_mask is not None:
        raise NotImplementedError(f"packed attention has no {' and no '.join(other) or 'mask'}")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    formula = _Formula(causal, query.shape[-1] ** -0.5 if scaling is None else scaling, dropout)
    if packing is None:
        return formula.fused(query, key, value, attention_mask).transpose(1, 2), None
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    if formula.has_varlen(query):
        return _varlen(query, key, value, packing, formula)[None], None
    # a CPU takes several times as long for the fused kernel's gradients in bf16 as for all the rest of a layer
    slow = query.device.type == "cpu" and query.dtype in _HALF and module.training
    return _run_by_run(query, key, value, packing, formula.products if slow else formula.fused)[None], None


def _no_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> None:
    """What transformers makes of masks of tokens for packed attention, which knows where texts end."""
    if attention_mask is not None and not attention_mask.all():
        raise NotImplementedError("a language model that reads packed texts cannot read padded ones")


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _no_mask)


# ---- kernels: queries (T, A, E), keys and values (T, A', E) -> (T, A, E) ----


def _varlen(query: Tensor, key: Tensor, value: Tensor, packing: Packing, formula: "_Formula") -> Tensor:
    """Flash attention of all texts in one kernel."""
    assert varlen_attn is not None, "has_varlen asks for it"
    outputs: Tensor = varlen_attn(
        query,
        key,
        value,
        packing.bounds,
        packing.bounds,
        packing.longest,
        packing.longest,
        scale=formula.scale,
        window_size=(-1, 0) if formula.causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return outputs


def _run_by_run(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, attention: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Texts of one length at a time, views without a copy; split and joined, so that gradients are joined once too."""
    sizes = [number * length for number, length in packing.runs]
    parts = zip(packing.runs, *(whole.split(sizes) for whole in (query, key, value)), strict=True)
    outputs = [attention(*(_texts(part, *run) for part in run_parts)) for run, *run_parts in parts]
    return torch.cat([output.transpose(1, 2).flatten(0, 1) for output in outputs])


def _texts(tokens: Tensor, number: int, length: int) -> Tensor:
    """(n L, A, E) -> (n, A, L, E)."""
    return tokens.unflatten(0, (number, length)).transpose(1, 2)


@dataclass(frozen=True)
class _Formula:
    """Attention of (n, A, L, E) queries to (n, A', L, E) keys and values -> (n, A, L, E)."""

    causal: bool
    scale: float
    dropout: float

    def has_varlen(self, query: Tensor) -> bool:
        """Whether a kernel reads texts of any lengths at once: flash attention's, on GPUs since Ampere."""
        if varlen_attn is None or not query.is_cuda or query.dtype not in _HALF or self.dropout:
            return False
        able = torch.cuda.get_device_capability(query.device) >= _FLASH_CAPABILITY
        return able and query.shape[-1] % _FLASH_MULTIPLE == 0 and query.shape[-1] <= _FLASH_MOST

    def fused(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """By torch's kernels; with a mask, that alone says what is seen."""
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout,
            is_causal=self.causal and mask is None,
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )

    def products(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """By plain matrix products."""
        shared = query.shape[1] // key.shape[1]
        if shared > 1:
            key, value = (part.repeat_interleave(shared, dim=1) for part in (key, value))
        products = (query * self.scale) @ key.transpose(-1, -2)
        if self.causal:
            future = torch.ones(products.shape[-2:], dtype=torch.bool, device=products.device).triu(1)
            products = products.masked_fill(future, float("-inf"))
        return F.dropout(torch.softmax(products, dim=-1), self.dropout) @ value
