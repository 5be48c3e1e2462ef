"""How much memory the activations of a language model take, measured on a few short texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from recbole_hllm.nn.probe import behaviour_of

# Gradients of a layer's activations, and what of a layer is computed again, lie beside each other.
_AT_WORK = 2


@dataclass(frozen=True)
class Bytes:
    """Of N texts of W tokens each: ``N * W * (token + pair * W)``."""

    token: float
    """Of each token, padding included."""
    pair: float
    """Of each pair of tokens of a text: attention, where its matrix is kept."""

    def __call__(self, texts: float, width: float) -> float:
        """Bytes of so many texts of so many tokens each."""
        return texts * width * (self.token + self.pair * width)


@dataclass(frozen=True)
class Activations:
    """What a training step needs for texts, besides weights and their gradients."""

    kept: Bytes
    """Kept from the forward pass for the backward pass."""
    at_work: Bytes
    """Used on top of that while the backward pass is under way: about one layer's."""


@dataclass(frozen=True)
class Room:
    """Memory for activations that are kept; what does not fit is computed again.

    Args:
        activations: what texts take.
        size: bytes for what is kept, infinite or even negative.
    """

    activations: Activations
    size: float

    def computed_again(self, chunks: Sequence[tuple[int, int]]) -> int:
        """How many of the first chunks have to be computed again.

        Args:
            chunks: (texts, tokens of each) of all, longest texts first. A long text takes more bytes for attention,
                which is cheap to compute, so that keeping the short ones saves most work per byte.
        """
        left = self.size
        for number in range(len(chunks), 0, -1):
            left -= self.activations.kept(*chunks[number - 1])
            if left < 0:
                return number
        return 0


def measure_activations(
    backbone: PreTrainedModel, longest: int, trained_inputs: bool, last: int | None = None
) -> Activations:
    """Reads a few texts, with gradients and in the precision of the present autocast, and counts what is kept.

    Random numbers that others draw stay the same.

    Args:
        backbone: without head; it may be on the device ``meta``, where nothing is computed.
        longest: tokens of the longest text.
        trained_inputs: whether gradients flow into the input vectors.
        last: how many layers, the last ones, gradients flow into; None: all.
    """
    device = next(backbone.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        kept = whole = _measure(backbone, longest, trained_inputs)
        checkpoints = any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules())
        if checkpoints and backbone.training:
            try:  # without dropout, and with all layers' activations
                whole = _measure(backbone.eval(), longest, trained_inputs)
            finally:
                backbone.train()
    share = _AT_WORK / (last or backbone.config.num_hidden_layers)
    return Activations(kept, Bytes(share * whole.token, share * whole.pair))


def _measure(backbone: PreTrainedModel, longest: int, trained_inputs: bool) -> Bytes:
    """From texts of two lengths, and one more of the shorter: what does not grow with them is weights in the precision
    of the products."""
    shorter = max(longest // 2, 1)
    one, two, longer = (
        _kept(backbone, texts, tokens, trained_inputs)
        for texts, tokens in ((1, shorter), (2, shorter), (2, longest))
    )
    of_shorter, of_longest = (two - one) / shorter, ((longer - two) / 2 + two - one) / longest
    pair = max(of_longest - of_shorter, 0.0) / max(longest - shorter, 1)
    return Bytes(max(of_longest - pair * longest, 0.0), pair)


def _kept(backbone: PreTrainedModel, texts: int, tokens: int, trained_inputs: bool) -> int:
    """Bytes of all distinct tensors, weights not counted, that reading texts of so many tokens keeps."""
    behaviour, weight = behaviour_of(backbone), next(backbone.parameters())
    inputs = weight.new_zeros(texts, tokens, behaviour.input_size, requires_grad=trained_inputs)
    known = {_place(part) for part in (*backbone.parameters(), *backbone.buffers())}
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        if _place(tensor) not in known:
            sizes[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    options: dict[str, Any] = {"use_cache": False} if behaviour.causal else {}
    if inputs.is_meta:  # without a mask some look whether texts are packed, and there is nothing to look at
        options["attention_mask"] = inputs.new_zeros(texts, 1, tokens, tokens)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        outputs = backbone(inputs_embeds=inputs, **options)
    del outputs  # it held all that was counted, so that no place was taken twice
    return sum(sizes.values())


def _place(tensor: Tensor) -> int:
    """Where the tensor's memory is; on the device meta, which one it would be."""
    return tensor.untyped_storage()._cdata
