"""Columns of numbers that models multiply embeddings by: as they are, large ones drown everything else."""

import logging
from typing import Any

import numpy as np
from recbole.utils import FeatureType

from recbole_hllm.data.files.float_columns import reads_numbers

_LARGE = 10


def warn_of_raw_numbers(dataset: Any) -> None:
    """Names columns of ``numerical_features`` with large numbers that no key brings to 0..1.

    Args:
        dataset: an AtomicDataset whose tables are read and not yet normalised.
    """
    config = dataset.config
    if config["normalize_all"] or not reads_numbers(config):
        return
    brought = {*(config["normalize_field"] or ()), *(config["discretization"] or ())}
    raw = {name: _largest(dataset, name) for name in config["numerical_features"] or () if name not in brought}
    large = {name: size for name, size in raw.items() if size > _LARGE}
    if large:
        named = ", ".join(f"{name} (up to {size:g})" for name, size in large.items())
        logging.getLogger().warning(
            f"numerical_features: {named}: embeddings are multiplied by these numbers as they are, and such models may "
            f"learn nothing; set normalize_all: True, or normalize_field: {list(large)}, to bring them to 0..1"
        )


def _largest(dataset: Any, name: str) -> float:
    """The largest absolute value of a column of numbers; 0 where it is none, or is not loaded."""
    kind = dataset.field2type.get(name)
    if kind not in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
        return 0.0
    columns = [table[name].to_numpy() for table in dataset.field2feats(name)]
    if kind == FeatureType.FLOAT_SEQ:
        columns = [np.concatenate([np.empty(0), *column]) for column in columns]
    return max((float(np.abs(column).max(initial=0)) for column in columns), default=0.0)
