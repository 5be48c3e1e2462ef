"""The dense all-action loss (LEARN, arXiv 2405.03988, section 3.3): every action read predicts all that follow."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Most logits computed at once: 64 MB of float32.
MAX_LOGITS = 1 << 24


def dense_all_action(
    outputs: Tensor,
    output_users: Tensor,
    targets: Tensor,
    target_users: Tensor,
    logit_scale: Tensor,
    target_ids: Tensor | None = None,
    max_logits: int = MAX_LOGITS,
) -> Tensor:
    """Mean, over all pairs of a history position j and a target k of the same user i, of
    ``-log(exp s(u_ij, v_ik) / (exp s(u_ij, v_ik) + sum over z != i and k' of exp s(u_ij, v_zk')))``
    with s(a, b) = exp(t) cos(a, b).

    Negatives are the other users' targets; a user's own other targets are none. The paper sums where this averages.
    Memory is that of ``max_logits`` logits, however large the batch: blocks of them are computed again in the
    backward pass. Everything is computed in float32.

    Args:
        outputs: (P, D) vectors u of history positions.
        output_users: (P,) whose they are, numbers of the batch's users from 0 on.
        targets: (M, D) vectors v of targets.
        target_users: (M,) whose they are.
        logit_scale: t, scalar.
        target_ids: (M,) items of the targets; where given, another user's target is no negative for a user who has the
            same item among the targets. None: the paper's formula.
        max_logits: most logits at a time, but at least those of one output.

    Returns:
        Scalar; 0 without any pair.
    """
    with torch.autocast(outputs.device.type, enabled=False):
        outputs = F.normalize(outputs.float(), dim=-1) * logit_scale.float().exp()
        targets = F.normalize(targets.float(), dim=-1)
        size = max(1, max_logits // max(len(targets), 1))
        blocks = list(zip(outputs.split(size), output_users.split(size), strict=True))
        total = outputs.sum() * 0
        for block in blocks:
            arguments = (*block, targets, target_users, target_ids)
            if len(blocks) > 1 and torch.is_grad_enabled():
                total = total + checkpoint(_sum_of_block, *arguments, use_reentrant=False)
            else:
                total = total + _sum_of_block(*arguments)
    return total / max(_count_pairs(output_users, target_users), 1)


def _sum_of_block(outputs, output_users, targets, target_users, target_ids) -> Tensor:
    logits = outputs @ targets.T
    own = output_users[:, None] == target_users
    removed = own if target_ids is None else own | _owned(output_users, target_users, target_ids)
    # Not -inf: where a user has no negatives at all, the gradient of the logarithm would be NaN.
    others = logits.masked_fill(removed, torch.finfo(logits.dtype).min).logsumexp(-1, keepdim=True)
    return F.softplus(others - logits)[own].sum()


def _owned(output_users, target_users, target_ids) -> Tensor:
    """(P, M) whether the target's item is among the targets of the output's user."""
    users, of_output = torch.unique(output_users, return_inverse=True)
    _, item_of = torch.unique(target_ids, return_inverse=True)
    has = target_ids.new_zeros(len(users), len(target_ids), dtype=torch.bool)
    own, target = torch.nonzero(users[:, None] == target_users, as_tuple=True)
    has[own, item_of[target]] = True
    return has[:, item_of][of_output]


def _count_pairs(output_users, target_users) -> int:
    users = int(max(output_users.max(), target_users.max())) + 1 if len(output_users) and len(target_users) else 0
    counts = (torch.bincount(part, minlength=users) for part in (output_users, target_users))
    return int(torch.mul(*counts).sum()) if users else 0
