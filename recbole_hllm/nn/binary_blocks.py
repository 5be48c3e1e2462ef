"""One positive and its negatives, each judged alone by binary cross-entropy, block by block."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recbole_hllm.nn.negative_blocks import Contrast, Remove, positions_at_once
from recbole_hllm.nn.own_products import own_products


def binary_in_blocks(
    outputs: Tensor,
    positive: Tensor,
    negatives: Tensor,
    remove: Remove,
    places: Tensor | None = None,
    beta: float = 1.0,
    at_once: int | None = None,
) -> Contrast:
    """Generalised binary cross-entropy (arXiv 2308.07192, section 5) of each position, beside its negatives.

    The logits of a block are computed again in the backward pass, where there are several blocks, so that those of one
    are in memory at a time.

    Args:
        outputs: (P, D) predictions o, whose products with the negatives are the logits.
        positive: (P,) logits s of the positives.
        negatives: (K, D) vectors n, shared by all positions, or (U, D) with ``places``.
        remove: takes out the negatives that do not count, see `Remove`.
        places: (P, K) which of the U are each position's own; None: they are shared.
        beta: the power of the positive's probability.
        at_once: positions of a block; None: as fit the processor's cache.

    Returns:
        Its loss is the sum over p of ``-(beta log sigma(s_p) + sum_k log(1 - sigma(o_p . n_k))) / (K + 1)``.
    """
    n_negatives = len(negatives) if places is None else places.shape[1]
    at_once = at_once or positions_at_once(n_negatives)

    def of(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        own = outputs[part]
        logits = own @ negatives.T if places is None else own_products(own, negatives, places[part])
        removed = torch.as_tensor(remove(logits, part), device=logits.device)
        loss = beta * F.softplus(-positive[part]).sum() + F.softplus(logits).sum()
        return loss, removed, (logits.detach() > positive.detach()[part, None]).sum(-1)

    blocks = [slice(first, first + at_once) for first in range(0, len(outputs), at_once)] or [slice(0, 0)]
    compute = of if len(blocks) == 1 else lambda part: checkpoint(of, part, use_reentrant=False)
    losses, removed, n_before = zip(*map(compute, blocks), strict=True)
    return Contrast(torch.stack(losses).sum() / (n_negatives + 1), sum(removed), torch.cat(n_before))
