"""Metrics by the user's history length and the item's popularity in training, from the kept ranks or scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.schema import DECLARED
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.evaluation.columns import MASKED, is_masked, plain_name
from recbole_hllm.evaluation.value_metrics import value_metrics

# Key of the segments' bounds -> array of the kept file.
SEGMENTED_BY = {"segments_user": "history_length", "segments_item": "popularity"}
# What a run keeps of its test: ranks of targets, or scores of labelled rows.
KEPT = ("ranks-test.npz", "scores-test.npz")
# What a target found at this rank adds to its row's metric, in RecBole's definitions: ``place`` is how many of the
# row's ``n`` targets rank at least as high, itself included.
_OF_A_HIT = {
    "hit": lambda rank, k, place, n: np.where(place == 1, 1.0, 0.0),
    "recall": lambda rank, k, place, n: 1 / n,
    "precision": lambda rank, k, place, n: np.full_like(rank, 1 / k, dtype=float),
    "mrr": lambda rank, k, place, n: np.where(place == 1, 1 / rank, 0.0),
    "map": lambda rank, k, place, n: place / rank / np.minimum(n, k),
    "ndcg": lambda rank, k, place, n: 1 / np.log2(rank + 1) / _ideal(k)[np.minimum(n, k) - 1],
}


def describe(evaluated: Mapping[str, np.ndarray], dataset: Any) -> dict[str, np.ndarray]:
    """Adds to the ranks or scores of an evaluation what segments are made of.

    Args:
        evaluated: ``user`` and ``target`` or ``item``, each (R,), from ``TopKCollector.take_ranks`` or
            ``ValueCollector.take_scores``.
        dataset: a SequenceDataset, after ``build``.

    Returns:
        Also ``history_length`` (R,), how many training interactions the user has, whatever their labels (a validation
        item before a test target does not count), and ``popularity`` (R,), how many the item has.
    """
    sequences, (_, train_lengths) = dataset.sequences, dataset.whole_training
    lengths = np.bincount(sequences.users, train_lengths, dataset.user_num).astype(np.int64)
    items = evaluated["target" if "target" in evaluated else "item"]
    popularity = dataset.whole_counts()[items]
    return {**evaluated, "history_length": lengths[evaluated["user"]], "popularity": popularity}


def segment_table(
    run_dir: str | Path, segments_user: Sequence[float] | None = None, segments_item: Sequence[float] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Metrics by segment of a finished run's test, whatever its model; nothing is evaluated again.

    Args:
        run_dir: folder of the run.
        segments_user: bounds of the user's number of training interactions: [1, 36] makes the segments 0, 1 to 35,
            and from 36 on. None: those of the run.
        segments_item: the same for the item's number of training interactions.

    Returns:
        ``history_length`` and ``popularity``: a dict for each segment with ``segment`` (such as "1-35"), ``targets``
        (how many), or ``rows`` of a run on labelled rows, and the run's metrics, see ``segment_metrics``.

    Raises:
        ConfigError: bounds that are no whole numbers of at least 1, or no run with a test in that folder.
        ModelError: the file of ranks or scores is damaged or comes from an earlier version.
    """
    folder = Path(run_dir)
    kept = [name for name in KEPT if (folder / name).is_file()]
    if not kept or not (folder / "config.yaml").is_file():
        missing = " or ".join(KEPT) if (folder / "config.yaml").is_file() else "config.yaml"
        raise ConfigError(f"run_dir: there is no finished run with a test in {folder}: no {missing}")
    keys = {"eval_targets": "each", **read_yaml(folder / "config.yaml")}  # runs of earlier versions do not name it
    given = {"segments_user": segments_user, "segments_item": segments_item}
    keys.update({key: value for key, value in given.items() if value is not None})
    return segment_metrics(_read(folder / kept[0]), keys)


def segment_metrics(evaluated: Mapping[str, np.ndarray], keys: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """``segment_table`` of ranks or scores in memory.

    Metrics are RecBole's, not rounded, of the segment's part of the evaluation alone; None where that has no value.
    Of rankings these are the top-k metrics. Where the targets of a user are evaluated together (``eval_targets``), a
    segment of users has the whole rows of these users. A segment of items divides rows: there hit@k is the share of the
    users with targets in the segment who got one of those, and recall@k the mean share of a user's targets in the
    segment that was found; metrics of the order are None, since targets of other segments take places too.
    Of labelled rows they are AUC, LogLoss, GAUC, ... over the segment's rows: None for an AUC of one class, or a mean
    over users of whom none has both classes among these rows.

    Args:
        evaluated: what ``describe`` returns: ``rank`` and, where targets are evaluated together, ``user``; or ``user``,
            ``label`` and ``score``; with ``history_length`` and ``popularity``, each (R,). With ``rank_masked`` (R,),
            too, there are metrics of both, those of it with ``-masked`` after their names.
        keys: ``metrics``, ``topk``, ``segments_user``, ``segments_item`` and ``eval_targets``; metrics that no rank
            gives are left out.
    """
    measure = _of_scores if "score" in evaluated else _of_ranks
    metrics = [name.lower() for name in _listed(keys["metrics"])]
    table: dict[str, list[dict[str, Any]]] = {}
    for key, array in SEGMENTED_BY.items():
        bounds = sorted(set(_listed(DECLARED[key].checked(keys[key]))))
        segment_of = np.searchsorted(bounds, evaluated[array], side="right")
        table[array] = []
        for index, label in enumerate(_labels(bounds)):
            inside = {name: values[segment_of == index] for name, values in evaluated.items()}
            table[array].append({"segment": label, **measure(inside, metrics, keys, array)})
    return table


def _of_scores(inside: Any, metrics: Any, keys: Any, array: Any) -> dict[str, Any]:
    values = value_metrics(metrics, inside["user"], inside["label"], inside["score"])
    return {"rows": len(inside["score"]), **values}


def _of_ranks(inside: Any, metrics: Any, keys: Any, array: Any) -> dict[str, Any]:
    together, values = keys["eval_targets"] == "together", {}
    rows = inside["user"] if together else np.arange(len(inside["rank"]))
    for mark, ranks in _columns(inside).items():
        places, sizes = _places(rows, ranks)
        for name in metrics:
            known = len(ranks) and not (together and array == "popularity" and name not in ("hit", "recall"))
            for k in _listed(keys["topk"]) if name in _OF_A_HIT else ():
                added = _added(name, ranks, k, places, sizes)
                values[f"{name}@{k}{mark}"] = float(added.sum() / len(np.unique(rows))) if known else None
    return {"targets": len(rows), **values}


def _columns(kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mark after a metric's name -> the ranks that it is of."""
    return {mark: kept[name] for mark, name in (("", "rank"), (MASKED, "rank_masked")) if name in kept}


def by_user(run_dir: str | Path, metric: str) -> np.ndarray | None:
    """A top-k metric user by user, from the ranks of a finished run's test; None where no rank gives it.

    Args:
        run_dir: folder of the run.
        metric: such as ndcg@10, in small letters, or ndcg@10-masked of a run that has both.

    Returns:
        (2, U) sum of the metric over each tested user's evaluated rows, and their number; users in ascending order.

    Raises:
        ModelError: the file of ranks is damaged.
    """
    folder, (name, _, k) = Path(run_dir), plain_name(metric).partition("@")
    if name not in _OF_A_HIT or not k.isdecimal() or not (folder / KEPT[0]).is_file():
        return None
    kept = _read(folder / KEPT[0])
    ranks = _columns(kept).get(MASKED if is_masked(metric) else "")
    if ranks is None:
        return None
    users, user_of = np.unique(kept["user"], return_inverse=True)
    together = read_yaml(folder / "config.yaml").get("eval_targets") == "together"
    rows = kept["user"] if together else np.arange(len(user_of))
    added = _added(name, ranks, int(k), *_places(rows, ranks))
    counts = np.ones(len(users)) if together else np.bincount(user_of)
    return np.stack([np.bincount(user_of, added), counts])


def _added(name: Any, ranks: Any, k: Any, places: Any, sizes: Any) -> np.ndarray:
    """(R,) what each target adds to the sum of a metric over the rows."""
    return np.where(ranks <= k, _OF_A_HIT[name](ranks, k, places, sizes), 0.0)


def _places(rows: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R,) place of each target among those of its row, from 1, by rank, and (R,) how many the row has."""
    rows, sizes = np.unique(rows, return_inverse=True, return_counts=True)[1:]
    order = np.lexsort((ranks, rows))
    places = np.empty_like(order)
    places[order] = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[rows[order]] + 1
    return places, sizes[rows]


def _ideal(k: int) -> np.ndarray:
    """(k,) DCG of 1 to k targets in the first places."""
    return np.cumsum(1 / np.log2(np.arange(2, k + 2)))


def _labels(bounds: Sequence[int]) -> list[str]:
    return [_label(first, end) for first, end in zip([0, *bounds], [*bounds, None], strict=True)]


def _label(first: int, end: int | None) -> str:
    if end is None:
        return f">= {first}"
    return str(first) if end == first + 1 else f"{first}-{end - 1}"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip, zlib, OS and value errors, by where the damage is
        raise ModelError(f"{path} is damaged: {error}") from error
    own = {"rank"} if path.name == KEPT[0] else {"user", "label", "score"}
    if missing := (own | set(SEGMENTED_BY.values())) - kept.keys():
        raise ModelError(
            f"{path} has no {', '.join(sorted(missing))}: it was written by an earlier version; "
            "run with evaluate_only: True to have segments in its evaluation-<n>.json"
        )
    return kept
