"""Gradients of several batches that make one optimizer step."""

from typing import Any

import numpy as np


def shares(train_data: Any, accumulation: int) -> list[float]:
    """Each batch's share of the rows of its optimizer step: the last batch has the rows that are left, the last group
    may be smaller.

    Args:
        train_data: the loader, or a list of batches where ``accumulation`` is 1.
        accumulation: batches of a step.
    """
    if accumulation == 1:
        return np.ones(len(train_data)).tolist()
    rows = np.full(len(train_data), train_data.step)
    rows[-1] = train_data.sample_size - train_data.step * (len(rows) - 1)
    groups = np.arange(len(rows)) // accumulation
    return (rows / np.bincount(groups, weights=rows)[groups]).tolist()
