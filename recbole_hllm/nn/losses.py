"""Losses that compare predicted with true item vectors."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def info_nce(
    outputs: Tensor,
    targets: Tensor,
    negatives: Tensor,
    target_ids: Tensor,
    negative_ids: Tensor,
    logit_scale: Tensor,
    nce_thres: float | None = 0.99,
) -> InfoNCEResult:
    """Generative loss of HLLM (arXiv 2409.12740, section 3.2), averaged over positions.

    With s(a, b) = exp(t) cos(a, b), the mean over p of
    ``-log(exp s(h_p, E_p) / (exp s(h_p, E_p) + sum_k exp s(h_p, E_k)))`` over the negatives k that are kept.
    A negative is taken out where its id is the target's or its cosine to the target exceeds `nce_thres`.
    Gradients flow into outputs, targets, negatives and t; everything is computed in float32.

    Args:
        outputs: (P, D) predictions h.
        targets: (P, D) vectors of the true next items.
        negatives: (K, D) vectors of the sampled items, shared by all positions, or (P, K, D), each position's own.
        target_ids: (P,) ids of the targets.
        negative_ids: (K,) or (P, K) ids of the negatives.
        logit_scale: t, scalar, see `clamp_logit_scale`.
        nce_thres: threshold of the false-negative filter; None filters by id only.

    Returns:
        loss (0 for P = 0), surviving negatives and accuracies.
    """
    with torch.autocast(outputs.device.type, enabled=False):
        outputs, targets, negatives = (F.normalize(x.float(), dim=-1) for x in (outputs, targets, negatives))
        removed = _false_negatives(targets, negatives, target_ids, negative_ids, nce_thres)
        # scaling the outputs, not the cosines, and filling in place keep a single P x K matrix of floats;
        # filled after the scale, a removed logit cannot make the gradient of t infinite
        outputs = outputs * logit_scale.float().exp()
        positive = (outputs * targets).sum(-1)
        negative = _dot(outputs, negatives).masked_fill_(removed, torch.finfo(torch.float32).min)
        n_targets = max(len(positive), 1)
        loss = (torch.logaddexp(positive, negative.logsumexp(-1)) - positive).sum() / n_targets
    return InfoNCEResult(
        loss=loss,
        surviving=(~removed).sum() / n_targets,
        accuracy=_accuracies(positive.detach(), negative.detach()),
    )


@torch.no_grad()
def _false_negatives(
    targets: Tensor, negatives: Tensor, target_ids: Tensor, negative_ids: Tensor, nce_thres: float | None
) -> Tensor:
    """(P, K) True where a negative is the target itself or too like it. Vectors are normalised."""
    removed = target_ids[:, None] == negative_ids
    if nce_thres is not None:
        removed |= _dot(targets, negatives) > nce_thres
    return removed


def _dot(vectors: Tensor, negatives: Tensor) -> Tensor:
    """(P, D) with shared (K, D) or own (P, K, D) negatives -> (P, K)."""
    return vectors @ negatives.T if negatives.dim() == 2 else torch.einsum("pd,pkd->pk", vectors, negatives)


def _accuracies(positive: Tensor, negative: Tensor) -> dict[int, Tensor]:
    n_before = (negative > positive[:, None]).sum(-1)
    n_targets = max(len(positive), 1)
    return {k: (n_before < k).sum() / n_targets for k in ACCURACY_AT if k <= 1 + negative.shape[1]}
