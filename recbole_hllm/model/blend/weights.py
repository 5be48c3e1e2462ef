"""Weights of a Blend: those to pick from, groups of history lengths, and what is wrong with their keys."""

import math
from itertools import combinations, pairwise

import numpy as np

from recbole_hllm.config.keys.blend import BlendKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation.metrics import is_smaller_better, needed_by

# Most weights that are tried.
_MOST = 5000


def simplex(parts: int, step: float) -> np.ndarray:
    """(C, parts) float64, every vector of multiples of ``step`` that add up to 1, the most even first.

    Args:
        step: 1 divided by a whole number.
    """
    units = round(1 / step)
    # The units lie in a row, with a bar between the shares of two parts.
    bars = np.array(list(combinations(range(units + parts - 1), parts - 1)), np.int64).reshape(-1, parts - 1)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, units + parts - 1)))
    shares = np.diff(edges, axis=1) - 1
    order = np.argsort((shares**2).sum(1), kind="stable")
    return shares[order] / units


def number_of_weights(parts: int, step: float) -> int:
    """How many rows ``simplex`` has."""
    units = round(1 / step)
    return math.comb(units + parts - 1, parts - 1)


def bounds_of(settings: BlendKeys) -> list[int]:
    """The lengths at which groups begin, but the first."""
    given = settings.blend_lengths
    return [] if given is None else given if isinstance(given, list) else [given]


def names_of_groups(bounds: list[int]) -> list[str]:
    """What lengths each group has, in words."""
    if not bounds:
        return ["any"]
    ends = (f"{begin} to {end - 1}" if begin < end - 1 else f"{begin}" for begin, end in pairwise([0, *bounds]))
    return [*ends, f"{bounds[-1]} or more"]


def check_weights(settings: BlendKeys, parts: int) -> None:
    """Raises ConfigError where there are no weights, or no way to pick them."""
    given, bounds = settings.blend_weights, bounds_of(settings)
    if bounds != sorted(set(bounds)) or bounds and bounds[-1] > settings.MAX_ITEM_LIST_LENGTH:
        raise ConfigError(
            f"blend_lengths: {bounds} must rise, to MAX_ITEM_LIST_LENGTH: {settings.MAX_ITEM_LIST_LENGTH} at most: no "
            "history that is read is longer"
        )
    if given is None:
        _check_picking(settings, parts)
        return
    if len(given) != parts or not sum(given):
        raise ConfigError(f"blend_weights: {given} must be {parts} numbers, one for each part in of, and not all 0")
    if bounds:
        raise ConfigError("blend_lengths: weights for lengths are picked; leave blend_weights or blend_lengths empty")


def _check_picking(settings: BlendKeys, parts: int) -> None:
    units, metric = 1 / settings.blend_step, settings.valid_metric
    if abs(units - round(units)) > 1e-6 * units:
        raise ConfigError(f"blend_step: {settings.blend_step} is no part of 1, such as 0.1, 0.05 or 0.25")
    if (number := number_of_weights(parts, settings.blend_step)) > _MOST:
        raise ConfigError(
            f"blend_step: {settings.blend_step} gives {number:,} weights of {parts} parts to pick from; take a larger "
            f"step, at most {_MOST:,} are tried, or give blend_weights"
        )
    if needed_by([metric.partition("@")[0]], labelled=False) != {"rec.topk"} or is_smaller_better(metric):
        raise ConfigError(
            f"valid_metric: weights are picked by where targets rank, as Recall, MRR, NDCG and Hit say, and {metric} "
            "says something else; take one of those, or give blend_weights"
        )
