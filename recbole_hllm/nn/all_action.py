"""The dense all-action loss (LEARN, arXiv 2405.03988, section 3.3): every action read predicts all that follow."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Most logits computed at once: 64 MB of float32.
MAX_LOGITS = 1 << 24


def dense_all_action(
    outputs: Tensor,
    output_rows: Tensor,
    targets: Tensor,
    target_rows: Tensor,
    logit_scale: Tensor,
    users: Tensor,
    same_items: tuple[Tensor, Tensor] | None = None,
    max_logits: int = MAX_LOGITS,
) -> Tensor:
    """Mean, over all pairs of a history position j and a target k of the same row i, of
    ``-log(exp s(u_ij, v_ik) / (exp s(u_ij, v_ik) + sum over z and k' of exp s(u_ij, v_zk')))``
    with s(a, b) = exp(t) cos(a, b), z being the rows of other users.

    A user's own other targets are no negatives. The paper, where a user has one row, sums where this averages. Memory
    is that of ``max_logits`` logits, however large the batch: blocks of them are computed again in the backward pass.
    Everything is computed in float32.

    Args:
        outputs: (P, D) vectors u of history positions.
        output_rows: (P,) whose they are, numbers of the batch's rows.
        targets: (M, D) vectors v of targets.
        target_rows: (M,) whose they are.
        logit_scale: t, scalar.
        users: (B,) whose each row is.
        same_items: (M,) items of the targets, and (B, T) all items that each row has among its targets, padded with 0;
            these are then no negatives for the row. None: the paper's formula.
        max_logits: most logits at a time, but at least those of one output.

    Returns:
        Scalar; 0 without any pair.
    """

    def removed(rows: Tensor) -> Tensor:
        same_user = users[rows][:, None] == users[target_rows]
        return same_user if same_items is None else same_user | _owned(rows, *same_items)

    parts = (outputs, output_rows, targets, target_rows)
    return _mean_over_pairs(parts, targets, removed, logit_scale, len(users), max_logits)


def all_action_over_catalogue(
    outputs: Tensor,
    output_rows: Tensor,
    targets: Tensor,
    target_rows: Tensor,
    logit_scale: Tensor,
    negatives: Tensor,
    same_items: tuple[Tensor, Tensor],
    max_logits: int = MAX_LOGITS,
) -> Tensor:
    """As `dense_all_action`, the negatives being items of the catalogue in place of other users' targets.

    With one target, the last position alone and all items it is the full softmax of the published code's fine-tuning.

    Args:
        outputs, output_rows, targets, target_rows, logit_scale, max_logits: as there.
        negatives: (N, D) vectors of items.
        same_items: (N,) which items these are, and (B, T) those that each row has among its targets, padded with 0;
            these are no negatives for the row.

    Returns:
        Scalar; 0 without any pair.
    """

    def removed(rows: Tensor) -> Tensor:
        return _owned(rows, *same_items)

    parts = (outputs, output_rows, targets, target_rows)
    return _mean_over_pairs(parts, negatives, removed, logit_scale, len(same_items[1]), max_logits)


def _mean_over_pairs(
    parts: tuple[Tensor, Tensor, Tensor, Tensor],
    negatives: Tensor,
    removed: Callable[[Tensor], Tensor],
    logit_scale: Tensor,
    n_rows: int,
    max_logits: int,
) -> Tensor:
    outputs, output_rows, targets, target_rows = parts
    with torch.autocast(outputs.device.type, enabled=False):
        outputs = F.normalize(outputs.float(), dim=-1) * logit_scale.float().exp()
        positives = F.normalize(targets.float(), dim=-1)
        # Other users' targets are the positives again: one product of matrices gives both.
        others = None if negatives is targets else F.normalize(negatives.float(), dim=-1)
        width = len(positives) + (0 if others is None else len(others))
        size = max(1, max_logits // max(width, 1))
        blocks = list(zip(outputs.split(size), output_rows.split(size), strict=True))
        total = outputs.sum() * 0
        for block in blocks:
            arguments = (*block, positives, target_rows, others, removed)
            if len(blocks) > 1 and torch.is_grad_enabled():
                total = total + checkpoint(_sum_of_block, *arguments, use_reentrant=False)
            else:
                total = total + _sum_of_block(*arguments)
    return total / max(count_pairs(output_rows, target_rows, n_rows), 1)


def _sum_of_block(
    outputs: Tensor,
    output_rows: Tensor,
    targets: Tensor,
    target_rows: Tensor,
    negatives: Tensor | None,
    removed: Callable[[Tensor], Tensor],
) -> Tensor:
    logits = outputs @ targets.T
    of_negatives = logits if negatives is None else outputs @ negatives.T
    # Not -inf: where a user has no negatives at all, the gradient of the logarithm would be NaN.
    lowest = torch.finfo(logits.dtype).min
    others = of_negatives.masked_fill(removed(output_rows), lowest).logsumexp(-1, keepdim=True)
    return F.softplus(others - logits)[output_rows[:, None] == target_rows].sum()


def _owned(output_rows: Tensor, target_ids: Tensor, owned: Tensor) -> Tensor:
    """(P, M) whether the target's item is among those of the output's row."""
    rows, of_output = torch.unique(output_rows, return_inverse=True)
    ids, place = torch.unique(torch.cat([target_ids, owned[rows].reshape(-1)]), return_inverse=True)
    of_target, of_owned = place[: len(target_ids)], place[len(target_ids) :].view(len(rows), -1)
    has = torch.zeros(len(rows), len(ids), dtype=torch.bool, device=rows.device).scatter_(1, of_owned, True)
    return has[:, of_target][of_output]


def count_pairs(output_rows: Tensor, target_rows: Tensor, n_rows: int) -> int:
    """How many pairs of an output and a target are of one row, by (P,) and (M,) numbers of ``n_rows`` rows."""
    counts = (torch.bincount(part, minlength=n_rows) for part in (output_rows, target_rows))
    return int(torch.mul(*counts).sum())
