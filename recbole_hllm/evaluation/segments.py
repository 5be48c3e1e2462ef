"""Every top-k metric by the user's history length and the item's popularity in training, from the kept ranks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.keys import as_number, read_yaml

# What RecBole computes of a row with one target of this rank, if the rank is at most k.
_OF_A_HIT = {
    "hit": lambda rank, k: np.ones_like(rank, dtype=float),
    "recall": lambda rank, k: np.ones_like(rank, dtype=float),
    "precision": lambda rank, k: np.full_like(rank, 1 / k, dtype=float),
    "mrr": lambda rank, k: 1 / rank,
    "map": lambda rank, k: 1 / rank,
    "ndcg": lambda rank, k: 1 / np.log2(rank + 1),
}
# Key of the segments' bounds -> array of the ranks file.
SEGMENTED_BY = {"segments_user": "history_length", "segments_item": "popularity"}


def describe_targets(ranks: Mapping[str, np.ndarray], dataset) -> dict[str, np.ndarray]:
    """Adds to the ranks of an evaluation what segments are made of.

    Args:
        ranks: ``user``, ``target``, ``rank``, each (R,), from ``TopKCollector.take_ranks``.
        dataset: a SequenceDataset, after ``build``.

    Returns:
        Also ``history_length`` (R,), how many training interactions the user has (a validation item before a test
        target does not count), and ``popularity`` (R,), how many the target has.
    """
    sequences, (_, train_lengths) = dataset.sequences, dataset.whole_training
    lengths = np.bincount(sequences.users, train_lengths, dataset.user_num).astype(np.int64)
    popularity = dataset.whole_counts()[ranks["target"]]
    return {**ranks, "history_length": lengths[ranks["user"]], "popularity": popularity}


def segment_table(run_dir: str | Path, segments_user=None, segments_item=None) -> dict[str, list[dict]]:
    """Metrics by segment of a finished run's test, whatever its model; nothing is evaluated again.

    Args:
        run_dir: folder of the run.
        segments_user: bounds of the user's number of training interactions: [1, 36] makes the segments 0, 1 to 35,
            and from 36 on. None: those of the run.
        segments_item: the same for the target's number of training interactions.

    Returns:
        ``history_length`` and ``popularity``: a dict for each segment with ``segment`` (such as "1-35"), ``targets``
        (how many) and the run's top-k metrics, not rounded, None where there are no targets.

    Raises:
        ConfigError: bounds that are no whole numbers of at least 1, or no run with a test in that folder.
        ModelError: the ranks file is damaged or comes from an earlier version.
    """
    folder = Path(run_dir)
    for name in ("config.yaml", "ranks-test.npz"):
        if not (folder / name).is_file():
            raise ConfigError(f"run_dir: there is no finished run with a test in {folder}: no {name}")
    keys = read_yaml(folder / "config.yaml")
    given = {"segments_user": segments_user, "segments_item": segments_item}
    keys.update({key: value for key, value in given.items() if value is not None})
    return segment_metrics(_read_ranks(folder / "ranks-test.npz"), keys)


def segment_metrics(ranks: Mapping[str, np.ndarray], keys: Mapping) -> dict[str, list[dict]]:
    """``segment_table`` of ranks in memory.

    Args:
        ranks: ``rank``, ``history_length`` and ``popularity``, each (R,).
        keys: ``metrics``, ``topk``, ``segments_user`` and ``segments_item``; metrics that no rank gives are left out.
    """
    metrics, cutoffs = keys["metrics"], _listed(keys["topk"])
    metrics = [name.lower() for name in ([metrics] if isinstance(metrics, str) else metrics)]
    values = {
        f"{name}@{k}": np.where(ranks["rank"] <= k, _OF_A_HIT[name](ranks["rank"], k), 0.0)
        for name in metrics
        if name in _OF_A_HIT
        for k in cutoffs
    }
    return {
        array: _by_segment(ranks[array], sorted(set(_listed(as_number(key, keys[key])))), values)
        for key, array in SEGMENTED_BY.items()
    }


def _by_segment(numbers: np.ndarray, bounds: Sequence[int], values: Mapping[str, np.ndarray]) -> list[dict]:
    segment_of = np.searchsorted(bounds, numbers, side="right")
    table = []
    for index, (first, end) in enumerate(zip([0, *bounds], [*bounds, None], strict=True)):
        inside = segment_of == index
        means = {name: float(value[inside].mean()) if inside.any() else None for name, value in values.items()}
        table.append({"segment": _label(first, end), "targets": int(inside.sum()), **means})
    return table


def _label(first: int, end: int | None) -> str:
    if end is None:
        return f">= {first}"
    return str(first) if end == first + 1 else f"{first}-{end - 1}"


def _listed(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _read_ranks(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ranks = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip, zlib, OS and value errors, by where the damage is
        raise ModelError(f"{path} is damaged: {error}") from error
    if missing := {"rank", *SEGMENTED_BY.values()} - ranks.keys():
        raise ModelError(
            f"{path} has no {', '.join(sorted(missing))}: it was written by an earlier version; "
            "run with evaluate_only: True to have segments in its evaluation-<n>.json"
        )
    return ranks
