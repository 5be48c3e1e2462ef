"""What is read from an export is what it should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from recbole_hllm.errors import Damaged, UserError, words_of
from recbole_hllm.serving.served import ServedPairs, ServedTable


def checked_pairs(popular: Tensor, pairs: Tensor, values: Tensor) -> ServedPairs:
    """What counts pairs, of the arrays of its file; ValueError where they are no such."""
    begins = pairs[:, 0]
    known = not pairs.numel() or 1 <= int(pairs.min()) <= int(pairs.max()) < len(popular)
    if not known or values.shape != begins.shape or (begins[1:] < begins[:-1]).any():
        raise ValueError("the pairs are not those of its items, in their order")
    if not are_numbers(popular) or not are_numbers(values):
        raise ValueError("some values are no numbers")
    return ServedPairs(popular, pairs.long(), values)


def checked_table(table: Tensor) -> ServedTable:
    """What has a number for each pair of items, of its (N - 1, N - 1) table without padding; else ValueError."""
    if table.dim() != 2 or table.shape[0] != table.shape[1] or not are_numbers(table):
        raise ValueError(f"{' x '.join(map(str, table.shape))} values are no table of numbers of all pairs of items")
    return ServedTable(F.pad(table, (1, 0, 1, 0)))


def are_numbers(values: Tensor) -> bool:
    """Whether all are finite, found without a table of as many answers."""
    return not values.numel() or all(bound.isfinite() for bound in torch.aminmax(values))


def whole(number: Any, least: int) -> int:
    """The number; ValueError where it is no whole one, or below ``least``."""
    if not isinstance(number, int) or number < least:
        raise ValueError(f"{number!r} is no whole number from {least} on")
    return number


@contextmanager
def damage(folder: Path) -> Iterator[None]:
    """An error that names the folder, for files that are missing or not what they should be."""
    try:
        yield
    except UserError:
        raise
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise Damaged(f"{folder} is damaged: {words_of(error)}") from error
