"""One positive against many shared negatives: the logits are computed block by block, with exact gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_hllm.errors import ModelError

# Most logits at once, 16 MB of float32, unless that were too few positions for fast matrix products.
_MAX_LOGITS = 1 << 22
_LEAST_POSITIONS = 32

Remove = Callable[[Tensor, slice], Tensor | int]
"""(p, K) logits and the positions they are of -> how many negatives do not count, whose logits it makes the lowest."""
_Gradient = Tensor | None


class Contrast(NamedTuple):
    """What P positions say of the negatives that count."""

    loss: Tensor
    """Scalar with gradient, the sum over positions p of ``-log(exp s_p / (exp s_p + sum_k exp o_p . n_k))``."""
    removed: Tensor
    """How many pairs of a position and a negative do not count."""
    n_before: Tensor
    """(P,) how many negatives that count have a larger logit than the positive."""


def contrast_in_blocks(
    outputs: Tensor, positive: Tensor, negatives: Tensor, remove: Remove, at_once: int | None = None
) -> Contrast:
    """Compares each position's positive with the negatives that count for it.

    A block has some positions and all negatives, so that its softmax is known and its gradients are computed in the
    forward pass, which keeps them in place of logits; the backward pass scales them. Nothing is computed twice, and
    value and gradients are those of the plain formula.

    Args:
        outputs: (P, D) predictions o, whose products with the negatives are the logits.
        positive: (P,) logits s of the positives.
        negatives: (K, D) vectors n, of the outputs' type.
        remove: takes out the negatives that do not count, see `Remove`.
        at_once: positions of a block; None: as fit the processor's cache.

    Raises:
        ModelError: in the backward pass, where a second derivative is to be possible.
    """
    if at_once is None:
        at_once = positions_at_once(len(negatives))
    return Contrast(*_Blocks.apply(outputs, positive, negatives, remove, at_once))


def positions_at_once(n_negatives: int) -> int:
    """How many positions with so many negatives each are computed at once."""
    return max(_MAX_LOGITS // max(n_negatives, 1), _LEAST_POSITIONS)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, positive: Tensor, negatives: Tensor, remove: Remove, at_once: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        vectors = (outputs, positive, negatives)
        needed = zip(vectors, ctx.needs_input_grad, strict=False)
        gradients = [torch.zeros_like(part) if wanted else None for part, wanted in needed]
        loss, removed = positive.new_zeros(()), torch.zeros((), dtype=torch.long, device=positive.device)
        n_before = torch.zeros_like(positive)
        for first in range(0, len(outputs), at_once):
            part = slice(first, first + at_once)
            own, logits = positive[part], outputs[part] @ negatives.T
            removed += remove(logits, part)
            # Numbers, not truth values: these are counted several times as fast.
            n_before[part] = torch.gt(logits, own[:, None], out=torch.empty_like(logits)).sum(-1)
            largest = torch.maximum(own, logits.amax(-1)) if len(negatives) else own
            weights, own_weight = logits.sub_(largest[:, None]).exp_(), (own - largest).exp()
            mass = weights.sum(-1) + own_weight
            loss += (mass.log() + (largest - own)).sum()
            _add_gradients(gradients, part, (outputs[part], own_weight, negatives), weights, mass)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(removed, n_before)
        return loss, removed, n_before

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[_Gradient, ...]:
        if torch.is_grad_enabled():  # what was kept are numbers: a graph of them would be silently wrong
            raise ModelError("the loss in blocks has no second derivative; call backward without create_graph")
        return *(None if part is None else part * gradient for part in ctx.saved_tensors), None, None


def _add_gradients(
    gradients: list[_Gradient], part: slice, block: tuple[Tensor, Tensor, Tensor], weights: Tensor, mass: Tensor
) -> None:
    """The probabilities are ``weights / mass``; what is divided are the smaller matrices."""
    (of_outputs, of_positive, of_negatives), (outputs, own_weight, negatives) = gradients, block
    if of_outputs is not None:
        torch.mm(weights, negatives, out=of_outputs[part]).div_(mass[:, None])
    if of_positive is not None:
        of_positive[part] = own_weight / mass - 1
    if of_negatives is not None:
        of_negatives.addmm_(weights.T, outputs / mass[:, None])
