"""Losses that compare predicted with true item vectors."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_hllm.nn.binary_blocks import binary_in_blocks
from recbole_hllm.nn.negative_blocks import Contrast, Remove, contrast_in_blocks
from recbole_hllm.nn.own_products import own_products

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
class Calibration:
    """How far gBCE corrects for drawing few negatives (arXiv 2308.07192, section 5).

    Attributes:
        t: 0: none, binary cross-entropy; 1: fully, so that scores are those of a training with all negatives.
        n_items: N, of the catalogue, without padding.
    """

    t: float
    n_items: int

    def beta(self, n_negatives: int) -> float:
        """The power of the positive's probability.

        With the sampling rate a = K / (N - 1), at most 1, it is ``a (t (1 - 1/a) + 1/a)``, which is 1 - t (1 - a).
        """
        return 1 - self.t * (1 - min(n_negatives / max(self.n_items - 1, 1), 1.0))


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
    *,
    places: Tensor | None = None,
    cosine: bool = True,
    calibration: Calibration | None = None,
) -> InfoNCEResult:
    """Generative loss of HLLM (arXiv 2409.12740, section 3.2), averaged over positions, or another of its kind.

    With s(a, b) = exp(t) cos(a, b), the mean over p of
    ``-log(exp s(h_p, E_p) / (exp s(h_p, E_p) + sum_k exp s(h_p, E_k)))`` over the negatives k that are kept.
    Dot products in place of cosines make it the softmax of SASRec's kind, over samples or a whole catalogue. With a
    calibration it is gBCE (arXiv 2308.07192, section 5): the mean over p of
    ``-(beta log sigma(s(h_p, E_p)) + sum_k log(1 - sigma(s(h_p, E_k)))) / (K + 1)``.

    A negative is taken out where its id is the target's or its cosine to the target exceeds `nce_thres`.
    Gradients flow into outputs, targets, negatives and t; everything is computed in float32. Shared negatives may be
    a whole catalogue: no P x K matrix is kept.

    Args:
        outputs: (P, D) predictions h.
        targets: (P, D) vectors of the true next items.
        negatives: (K, D) vectors of the sampled items, shared by all positions, or (U, D) with ``places``.
        target_ids: (P,) ids of the targets.
        negative_ids: (K,) or (P, K) ids of the negatives.
        logit_scale: t, scalar, see `clamp_logit_scale`.
        nce_thres: threshold of the false-negative filter; None filters by id only.
        target_bias: (P,) what is added to the logits of the targets; None: nothing.
        negative_bias: (K,) what is added to those of shared negatives; None: nothing.
        places: (P, K) which of the U vectors are each position's own negatives; None: they are shared.
        cosine: s is a cosine; False: s(a, b) = exp(t) a . b.
        calibration: of gBCE; None: the softmax.

    Returns:
        loss (0 for P = 0), surviving negatives and accuracies.
    """
    with torch.autocast(outputs.device.type, enabled=False):
        outputs, targets, negatives = outputs.float(), targets.float(), negatives.float()
        if cosine:
            outputs, targets, negatives = (F.normalize(x, dim=-1) for x in (outputs, targets, negatives))
        of_items = (targets.detach(), negatives.detach(), target_ids, negative_ids, places)
        remove = _false_negatives(*of_items, nce_thres, cosine)
        # After the scale, so that a logit that is taken out cannot make the gradient of t infinite.
        outputs = outputs * logit_scale.float().exp()
        positive = (outputs * targets).sum(-1)
        if target_bias is not None:
            positive = positive + target_bias.float()
        if negative_bias is not None:  # one number more in each vector: their product has it
            outputs = torch.cat([outputs, torch.ones_like(outputs[:, :1])], dim=1)
            negatives = torch.cat([negatives, negative_bias.float()[:, None]], dim=1)
        n_targets, n_negatives = max(len(targets), 1), negative_ids.shape[-1]
        if calibration is not None:
            beta = calibration.beta(n_negatives)
            result = binary_in_blocks(outputs, positive, negatives, remove, places, beta)
        elif places is None:
            result = contrast_in_blocks(outputs, positive, negatives, remove)
        else:
            result = _contrast_with_own(outputs, positive, negatives, remove, places)
    return InfoNCEResult(
        loss=result.loss / n_targets,
        surviving=(len(targets) * n_negatives - result.removed) / n_targets,
        accuracy={k: (result.n_before < k).sum() / n_targets for k in ACCURACY_AT if k <= 1 + n_negatives},
    )


def _contrast_with_own(
    outputs: Tensor, positive: Tensor, negatives: Tensor, remove: Remove, places: Tensor
) -> Contrast:
    """As `contrast_in_blocks`, with each position's own negatives, so few that all logits are kept."""
    logits = own_products(outputs, negatives, places)
    removed = torch.as_tensor(remove(logits, slice(None)))
    loss = (torch.logaddexp(positive, logits.logsumexp(-1)) - positive).sum()
    return Contrast(loss, removed, (logits.detach() > positive.detach()[:, None]).sum(-1))


def _false_negatives(
    targets: Tensor,
    negatives: Tensor,
    target_ids: Tensor,
    negative_ids: Tensor,
    places: Tensor | None,
    nce_thres: float | None,
    normalised: bool,
) -> Remove:
    """Takes out negatives that are the target itself or too like it."""
    shared = _SharedIds(negative_ids) if places is None else None
    if nce_thres is not None and not normalised:
        targets, negatives = F.normalize(targets, dim=-1), F.normalize(negatives, dim=-1)

    def remove(logits: Tensor, part: slice) -> Tensor | int:
        ids, lowest = target_ids[part], torch.finfo(logits.dtype).min  # not -inf: that minus itself is no number
        same = (ids[:, None] == negative_ids[part]).nonzero(as_tuple=True) if shared is None else shared.places(ids)
        if nce_thres is None:
            logits[same] = lowest
            return len(same[0])
        if places is None:
            alike = targets[part] @ negatives.T
        else:
            alike = own_products(targets[part], negatives, places[part])
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
