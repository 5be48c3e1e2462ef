"""Rows of a table with several seeds: mean and standard deviation over the runs of each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbole_hllm.config.keys.run import SeedsKeys
from recbole_hllm.config.schema import DECLARED
from recbole_hllm.errors import ConfigError
from recbole_hllm.tables.header import mark_incomparable

_OF_A_RUN = ("test_result", "best_valid_score", "best_valid_result", "costs")
# Of costs, what names the runs that a run reads, which have seeds of their own.
_OF_SINGLE_RUNS = {"alone", "runs_read"}
# What is kept of the test of a row against another one -> the column of its table.
_TESTED = ("difference", "low", "high", "effect", "p", "p_holm", "verdict")


def checked_seeds(value: Any, keys: Mapping[str, Any]) -> list[int] | None:
    """The seeds of a table.

    Args:
        value: of ``seeds``.
        keys: others of the table.

    Raises:
        ConfigError: it is no list of different whole numbers, or another key gives a run its seed.
    """
    seeds = DECLARED["seeds"].checked([value] if isinstance(value, int) and not isinstance(value, bool) else value)
    if seeds is None:
        return None
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds: {seeds} is not a list of different numbers, such as [1, 2, 3]")
    for key in keys:
        if key.endswith(".seed") and keys[key] is not None:
            raise ConfigError(f"{key}: seeds gives every row its seeds; leave one of the two out")
    if keys.get("seed") not in (None, seeds[0]):
        raise ConfigError(
            f"seeds: {seeds} begin with another number than seed: {keys['seed']}; leave seed out, and in a table that "
            "goes on the first seed as it was"
        )
    return list(seeds)


def repeated_rows(config: Any) -> list[str] | None:
    """Names of the rows that have a run with each of the seeds, those of ``seeds_for``; None of all rows.

    Raises:
        ConfigError: the key has no names.
    """
    named = SeedsKeys.of(config).seeds_for
    named = [named] if isinstance(named, str) else named
    if named is not None and not isinstance(named, list):
        raise ConfigError(f"seeds_for: {named!r} is not a list of names of rows, such as [HLLM, SASRec]")
    return named


def over_seeds(model: str, runs: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """One row of the runs of a model.

    Args:
        model: name of the row.
        runs: seed -> the row that the run alone would be.

    Returns:
        A row: ``test_result``, ``best_valid_score``, ``best_valid_result``, ``segments`` and ``costs`` are means, a
        row has converged where all its runs have; ``deviations`` are the standard deviations of ``test_result`` (n - 1
        in the denominator; None of one run), ``seeds`` the seeds, and ``runs`` what each of them came to. Where a run
        has failed the row has.
    """
    (first, one), *others = runs.items()
    if "error" not in one:
        for row in (row for _, row in others if "error" not in row):
            mark_incomparable(row, one["protocol"], f"{model} with seed {first}")
    kept = [{"seed": seed, **{key: row[key] for key in (*_OF_A_RUN, "error") if key in row}}
            for seed, row in runs.items()]  # fmt: skip
    failed = [f"seed {seed}: {row['error']}" for seed, row in runs.items() if "error" in row]
    if failed:
        return {"model": model, "error": "; ".join(failed), "seeds": list(runs), "runs": kept}
    row = {**one, "seeds": list(runs), "runs": kept}
    row |= {key: common([run[key] for run in runs.values()]) for key in (*_OF_A_RUN, "segments") if key in one}
    row["costs"] = {name: cost for name, cost in row["costs"].items() if name not in _OF_SINGLE_RUNS}
    results = [run.get("test_result") or {} for run in runs.values()]
    row["deviations"] = {metric: _deviation([result[metric] for result in results]) for metric in results[0]}
    return row


def common(values: Sequence[Any]) -> Any:
    """One value for those of several runs: the mean of numbers, rounded where they are whole, True where all are;
    None where one is; words with how many runs have them; of dicts and lists that of each element."""
    first = values[0]
    if all(value == first for value in values):
        return first
    if any(value is None for value in values):
        return None
    if isinstance(first, dict):
        return {key: common([value.get(key) for value in values]) for key in first}
    if isinstance(first, list):
        return [common(parts) for parts in zip(*values, strict=True)]
    if isinstance(first, bool):
        return all(values)
    if isinstance(first, (int, float)):
        mean = float(np.mean(values))
        return round(mean) if all(isinstance(value, int) for value in values) else mean
    return ", ".join(f"{word} ({count} of {len(values)})" for word, count in Counter(values).items())


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) == len(values) > 1 else None


def further_columns(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of a table's plain numbers beside the values of metrics: standard deviations over seeds (``sd``), and
    what the test against another row found, where there are any."""
    columns = {}
    for metric in metrics:
        columns[f"{metric} sd"] = [row.get("deviations", {}).get(metric) for row in rows]
        for name in _TESTED:
            columns[f"{metric} {name}"] = [row.get("tests", {}).get(metric, {}).get(name) for row in rows]
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}
