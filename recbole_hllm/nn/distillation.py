"""What a shallow language model learns from a deep one, block by block (SLMRec, arXiv 2405.17890, section 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_hllm.errors import ModelError


def block_ends(depth: int, blocks: int) -> tuple[int, ...]:
    """The last layer of each block of equally many layers: (2, 4, 6, 8) for a depth of 8 in 4 blocks.

    Raises:
        ModelError: the layers cannot be shared equally.
    """
    if blocks < 1 or depth % blocks:
        raise ModelError(f"{depth} layers cannot be cut into {blocks} blocks of equally many")
    return tuple(range(depth // blocks, depth + 1, depth // blocks))


def direction_loss(students: Sequence[Tensor], teachers: Sequence[Tensor], reduction: str = "mean") -> Tensor:
    """1 - D_cos: the mean (or sum) over blocks of ``1 - cos(h_t, h_s)``, averaged over positions, in float32.

    Args:
        students, teachers: (P, H) states at the end of each block.
        reduction: over blocks; ``mean`` is the paper's, ``sum`` its code's.
    """
    apart = [
        (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()
        for student, teacher in zip(students, teachers, strict=True)
    ]
    return _over_blocks(apart, reduction)


def norm_loss(
    students: Sequence[Tensor], teachers: Sequence[Tensor], reduction: str = "mean", power: int = 2
) -> Tensor:
    """D_norm: the mean (or sum) over blocks of ``||h_t - h_s||``, squared in the paper and not in its code.

    Args:
        students, teachers, reduction: as in ``direction_loss``.
        power: of the norm, 2 or 1.
    """
    apart = []
    for student, teacher in zip(students, teachers, strict=True):
        squared = (student.float() - teacher.float()).square().sum(-1)
        # sqrt has no gradient at 0, where a student starts as its teacher
        apart.append((squared if power == 2 else (squared + 1e-12).sqrt()).mean())
    return _over_blocks(apart, reduction)


def _over_blocks(values: list[Tensor], reduction: str) -> Tensor:
    stacked = torch.stack(values)
    return stacked.sum() if reduction == "sum" else stacked.mean()
