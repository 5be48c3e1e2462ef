"""Losses that compare predicted with true item vectors."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_hllm.nn.negative_blocks import Contrast, Remove, contrast_in_blocks

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = math.log(100)
ACCURACY_AT = (1, 5, 10, 50, 100)


def new_logit_scale() -> nn.Parameter:
    """The learned logarithm t of the inverse temperature, a scalar that starts at ln(1 / 0.07)."""
    return nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))


def clamp_logit_scale(logit_scale: nn.Parameter) -> nn.Parameter:
    """Brings t back into [0, ln 100], in place; to be called before every use. A fixed t stays as it is."""
    if logit_scale.requires_grad:
        with torch.no_grad():
            logit_scale.clamp_(0, MAX_LOGIT_SCALE)
    return logit_scale


@dataclass(frozen=True)
class InfoNCEResult:
    """The loss and what a log should say about it."""

    loss: Tensor
    """Scalar with gradient."""
    surviving: Tensor
    """Mean number of negatives that are kept per target; near zero the training has collapsed."""
    accuracy: dict[int, Tensor]
    """k -> share of targets whose positive is among the k largest logits, for each k <= 1 + K."""

    def times(self, weight: float) -> "InfoNCEResult":
        """All numbers times a weight, for a mean over several results."""
        accuracy = {k: share * weight for k, share in self.accuracy.items()}
        return InfoNCEResult(self.loss * weight, self.surviving * weight, accuracy)


def info_nce(
    outputs: Tensor,
    targets: Tensor,
    negatives: Tensor,
    target_ids: Tensor,
    negative_ids: Tensor,
    logit_scale: Tensor,
    nce_thres: float | None = 0.99,
    target_bias: Tensor | None = None,
    negative_bias: Tensor | None = None,
) -> InfoNCEResult:
    """Generative loss of HLLM (arXiv 2409.12740, section 3.2), averaged over positions.

    With s(a, b) = exp(t) cos(a, b), the mean over p of
    ``-log(exp s(h_p, E_p) / (exp s(h_p, E_p) + sum_k exp s(h_p, E_k)))`` over the negatives k that are kept.
    A negative is taken out where its id is the target's or its cosine to the target exceeds `nce_thres`.
    Gradients flow into outputs, targets, negatives and t; everything is computed in float32. Shared negatives may be
    a whole catalogue: no P x K matrix is kept.

    Args:
        outputs: (P, D) predictions h.
        targets: (P, D) vectors of the true next items.
        negatives: (K, D) vectors of the sampled items, shared by all positions, or (P, K, D), each position's own.
        target_ids: (P,) ids of the targets.
        negative_ids: (K,) or (P, K) ids of the negatives.
        logit_scale: t, scalar, see `clamp_logit_scale`.
        nce_thres: threshold of the false-negative filter; None filters by id only.
        target_bias: (P,) what is added to the logits of the targets; None: nothing.
        negative_bias: (K,) what is added to those of shared negatives; None: nothing.

    Returns:
        loss (0 for P = 0), surviving negatives and accuracies.
    """
    with torch.autocast(outputs.device.type, enabled=False):
        outputs, targets, negatives = (F.normalize(x.float(), dim=-1) for x in (outputs, targets, negatives))
        remove = _false_negatives(targets.detach(), negatives.detach(), target_ids, negative_ids, nce_thres)
        # After the scale, so that a logit that is taken out cannot make the gradient of t infinite.
        outputs = outputs * logit_scale.float().exp()
        positive = (outputs * targets).sum(-1)
        if target_bias is not None:
            positive = positive + target_bias.float()
        if negative_bias is not None:  # one number more in each vector: their product has it
            outputs = torch.cat([outputs, torch.ones_like(outputs[:, :1])], dim=1)
            negatives = torch.cat([negatives, negative_bias.float()[:, None]], dim=1)
        contrast = contrast_in_blocks if negatives.dim() == 2 else _contrast_with_own
        result = contrast(outputs, positive, negatives, remove)
    n_targets, n_negatives = max(len(targets), 1), negatives.shape[-2]
    return InfoNCEResult(
        loss=result.loss / n_targets,
        surviving=(len(targets) * n_negatives - result.removed) / n_targets,
        accuracy={k: (result.n_before < k).sum() / n_targets for k in ACCURACY_AT if k <= 1 + n_negatives},
    )


def _contrast_with_own(outputs: Tensor, positive: Tensor, negatives: Tensor, remove: Remove) -> Contrast:
    """As `contrast_in_blocks`, of (P, K, D) negatives; the logits are the least of their memory."""
    logits = torch.einsum("pd,pkd->pk", outputs, negatives)
    removed = torch.as_tensor(remove(logits, slice(None)))
    loss = (torch.logaddexp(positive, logits.logsumexp(-1)) - positive).sum()
    return Contrast(loss, removed, (logits.detach() > positive.detach()[:, None]).sum(-1))


def _false_negatives(
    targets: Tensor, negatives: Tensor, target_ids: Tensor, negative_ids: Tensor, nce_thres: float | None
) -> Remove:
    """Takes out negatives that are the target itself or too like it. Vectors are normalised."""
    shared = _SharedIds(negative_ids) if negatives.dim() == 2 else None

    def remove(logits: Tensor, part: slice) -> Tensor | int:
        ids, lowest = target_ids[part], torch.finfo(logits.dtype).min  # not -inf: that minus itself is no number
        same = (ids[:, None] == negative_ids[part]).nonzero(as_tuple=True) if shared is None else shared.places(ids)
        if nce_thres is None:
            logits[same] = lowest
            return len(same[0])
        if shared is None:
            alike = torch.einsum("pd,pkd->pk", targets[part], negatives[part])
        else:
            alike = targets[part] @ negatives.T
        alike.gt_(nce_thres)[same] = 1
        logits.add_(alike, alpha=lowest)
        return alike.sum().long()

    return remove


class _SharedIds:
    """Finds ids among the (K,) of shared negatives, which may be there more than once."""

    def __init__(self, ids: Tensor) -> None:
        self._sorted, self._order = ids.sort()

    def places(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """(p,) ids -> rows and columns of all pairs of a wanted id and an equal one."""
        first = torch.searchsorted(self._sorted, wanted)
        number = torch.searchsorted(self._sorted, wanted, right=True) - first
        rows = torch.repeat_interleave(number)
        of_row = torch.arange(len(rows), device=rows.device) - (number.cumsum(0) - number)[rows]
        return rows, self._order[first[rows] + of_row]
