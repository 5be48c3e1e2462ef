"""Our numbers beside the official code's, where its own are no numbers or rounding decides which negatives it keeps."""

import math
from contextlib import contextmanager
from itertools import product
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from recbole_hllm.model.base import next_item
from recbole_hllm.nn import losses

BORDER = 1e-6  # of a cosine to the filter's threshold: float32's rounding of it, in a trained model
_RIGHT = losses._false_negatives  # a test puts a wrong one in its place
MOST = 8  # negatives as near as this in one batch; more are no accident


def close(ours, expected, tolerance, undefined=False):
    """Equal but for an absolute tolerance; where the reference is not a number, which `undefined` allows, ours is."""
    ours, expected = np.asarray(ours), np.asarray(expected)
    known = np.isfinite(expected)
    assert known.all() or undefined, "the reference is not a number, and no text is empty"
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours[known], expected[known], atol=tolerance, rtol=0)


def numbers_of(ours, expected, undefined=False):
    """The same for numbers by name: those of the reference that are some, to compare with ours."""
    known = {name: value for name, value in expected.items() if math.isfinite(value)}
    assert len(known) == len(expected) or undefined, "the reference is not a number, and no text is empty"
    assert all(math.isfinite(ours[name]) for name in expected)
    return known


def info_nce_near(expected):
    """`info_nce` that keeps or removes negatives within BORDER of the threshold so as to come nearest to this loss.

    All others are where the formula has them; so are all where the expected loss is None or not a number.
    """

    def compute(outputs, targets, negatives, target_ids, negative_ids, logit_scale, nce_thres, **others):
        assert others in ({}, {"places": None, "cosine": True, "calibration": None})
        arguments = (outputs, targets, negatives, target_ids, negative_ids, logit_scale, nce_thres)
        near = _near_threshold(targets, negatives, nce_thres) & (target_ids[:, None] != negative_ids)
        if expected is None or not math.isfinite(expected) or not near.any():
            return losses.info_nce(*arguments)
        assert near.sum() <= MOST, f"{near.sum()} negatives are within {BORDER} of the threshold {nce_thres}"
        results = []
        for removed in product([False, True], repeat=int(near.sum())):
            with patch.object(losses, "_false_negatives", _with_sides(losses._false_negatives, near, removed)):
                results.append(losses.info_nce(*arguments))
        return min(results, key=lambda result: abs(result.loss.item() - expected))

    return compute


@contextmanager
def negatives_near(expected):
    """A model's loss is computed by `info_nce_near` this one."""
    with patch.object(next_item, "info_nce", info_nce_near(expected)):
        yield


def _near_threshold(targets, negatives, nce_thres):
    """(P, D), (K, D) -> (P, K)"""
    targets, negatives = (F.normalize(vectors.detach().float(), dim=-1) for vectors in (targets, negatives))
    return (targets @ negatives.T - nce_thres).abs() < BORDER


def _with_sides(formula, near, sides):
    def false_negatives(*arguments):
        def remove(logits, part):
            before, lowest = logits.detach().clone(), torch.finfo(logits.dtype).min
            formula(*arguments)(logits, part)
            with torch.no_grad():
                logits[near[part]] = torch.where(torch.tensor(sides), lowest, before[near[part]])
            return (logits == lowest).sum()

        return remove

    return false_negatives


# ---- wrong filters, which the reference's numbers must tell from the right one ----


def nothing_filtered(*_):
    return lambda logits, part: 0


def ids_filtered(targets, negatives, target_ids, negative_ids, places, nce_thres, normalised):
    return _RIGHT(targets, negatives, target_ids, negative_ids, places, None, normalised)
