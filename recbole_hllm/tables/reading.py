"""Plain sentences that read a table: who leads and by how much, what chance explains, and what training adds."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from recbole_hllm.evaluation.metrics import is_smaller_better
from recbole_hllm.registry import base_model
from recbole_hllm.tables.table import results_of, value_of
from recbole_hllm.training.stopping import COUNTED_ONCE

# Sanity row -> what it does, and what it means that no trained row passes it.
_RULES = {
    "Pop": ("it counts interactions", "popularity alone says as much about the next item"),
    "Markov": (
        "it counts which item directly followed which",
        "the last item alone says as much about the next one as whole histories",
    ),
    "TextKNN": ("it compares texts", "similar texts alone say as much about the next item"),
}
# Trains nothing itself, and is made of rows that are trained.
_OF_TRAINED = {"Blend"}
_ANY_RULE = ("a rule without training", "the rule alone says as much about the next item")
# From so many standard errors on, chance gives a difference as large in fewer than one of 20 comparisons.
_BEYOND_CHANCE = 2


def reading(rows: list[dict[str, Any]], metric: str, by_user: Mapping[str, np.ndarray] | None = None) -> list[str]:
    """Sentences for a table of several rows; none where no row has a result.

    Args:
        rows: of the table.
        metric: the one to read, in small letters; the table's first where no row has it.
        by_user: row -> (2, users): sum of the metric over a user's evaluated rows, and their number. Rows and metrics
            without are read without standard errors.
    """
    metrics = [name for name in dict.fromkeys(name for row in rows for name in results_of(row)) if _ranked(rows, name)]
    if not metrics or len(rows) < 2:
        return []
    metric, by_user = metric if metric in metrics else metrics[0], by_user or {}
    ranked = _ranked(rows, metric)
    if len(ranked) == 1:
        return [f"Only {ranked[0]['model']} has a value of {metric}: there is nothing to compare it with."]
    if not any(value_of(row, metric) for row in ranked):
        return [f"Every row has 0 in {metric}: it does not distinguish the rows."]
    others = [name for name in metrics if name != metric and len({value_of(row, name) for row in rows} - {None}) > 1]
    return [
        f"{_lead(ranked, metric)}{_elsewhere(rows, ranked, metric, others)}.",
        *_chance(ranked, metric, by_user),
        *_training(ranked, metric, by_user),
    ]


def _ranked(rows: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Rows with a value of a metric, the best first."""
    known = [(value, row) for row in rows if (value := value_of(row, metric)) is not None]
    return [row for _, row in sorted(known, key=lambda pair: pair[0], reverse=not is_smaller_better(metric))]


def _best(ranked: list[dict[str, Any]], metric: str) -> list[str]:
    """Names of the rows that share the best value."""
    return [row["model"] for row in ranked if value_of(row, metric) == value_of(ranked[0], metric)]


# ---- who leads ----


def _lead(ranked: list[dict[str, Any]], metric: str) -> str:
    best = _best(ranked, metric)
    note = " (less is better)" if is_smaller_better(metric) else ""
    lead = f"{_list(best)} {_verb(best)} in {metric}{note} with {value_of(ranked[0], metric):.4f}"
    return lead if len(best) == len(ranked) else f"{lead}, {_distance(ranked[0], ranked[len(best)], metric)}"


def _distance(row: dict[str, Any], other: dict[str, Any], metric: str) -> str:
    """12 % above SASRec (0.0580)."""
    value, reference = value_of(row, metric), value_of(other, metric)
    assert value is not None and reference is not None, "rows are ranked by it"
    amount = f"{abs(value - reference):.4f}"  # percent of 0, or of a number below it, say nothing
    if reference > 0:
        percent = abs(100 * (value / reference - 1))
        amount = "less than 0.1 %" if percent < 0.05 else f"{percent:.{0 if percent >= 9.95 else 1}f} %"
    return f"{amount} {'above' if value > reference else 'below'} {other['model']} ({reference:.4f})"


def _elsewhere(rows: list[dict[str, Any]], ranked: list[dict[str, Any]], metric: str, others: list[str]) -> str:
    """Which rows are best in the other metrics."""
    led_by: dict[tuple[Any, ...], list[str]] = {}
    for name in others:
        led_by.setdefault(tuple(_best(_ranked(rows, name), name)), []).append(name)
    too = led_by.pop(tuple(_best(ranked, metric)), [])
    return "".join(
        [f", and in {_list(too)} too" if too else ""]
        + [f"; {_list(best)} {_verb(best)} in {_list(names)}" for best, names in led_by.items()]
    )


def _verb(best: Collection[str]) -> str:
    return "leads" if len(best) == 1 else "tie"


# ---- what chance explains ----


def _chance(ranked: list[dict[str, Any]], metric: str, by_user: Mapping[str, np.ndarray]) -> list[str]:
    seeds = _seeds(ranked)
    errors = None if len(_best(ranked, metric)) > 1 else _standard_errors(ranked[0], ranked[1], by_user)
    if errors is None:
        return [seeds]
    users = by_user[ranked[0]["model"]].shape[1]
    judged = "more than the choice of test users explains" if errors >= _BEYOND_CHANCE else "which may be chance"
    return [f"The difference is {errors:.1f} standard errors over {users:,} test users, {judged}.", seeds]


def _seeds(ranked: list[dict[str, Any]]) -> str:
    """The sentences about how many seeds the rows have."""
    repeated = next((row["seeds"] for row in ranked if len(row.get("seeds", ())) > 1), None)
    if repeated is None:
        return "Each row is one run with one seed: before you name a winner, repeat the rows with other seeds."
    once = [row["model"] for row in ranked if len(row.get("seeds", ())) == 1]
    seldom = f"{_list(once)} {'has' if len(once) == 1 else 'have'} one run, with the first of them. " if once else ""
    return (
        f"A row with ± is the mean of {len(repeated)} runs with the seeds {_list(map(str, repeated))}, and ± their "
        f"standard deviation; users are compared by their means over these runs. {seldom}A rule without training has "
        "one run."
    )


def _standard_errors(row: dict[str, Any], other: dict[str, Any], by_user: Mapping[str, np.ndarray]) -> float | None:
    """How many standard errors two rows differ by, compared user by user; None where that is not known.

    A metric is a ratio of sums over users, so that users with more evaluated rows count for more.
    """
    if not {row["model"], other["model"]} <= by_user.keys():
        return None
    (sums, counts), (other_sums, _) = by_user[row["model"]], by_user[other["model"]]
    differences, users = sums - other_sums, len(sums)
    mean = differences.sum() / counts.sum()
    squares = ((differences - mean * counts) ** 2).sum()
    error = math.sqrt(squares * users / max(users - 1, 1)) / counts.sum()
    return abs(mean) / error if error > 0 else None


# ---- what training adds ----


def _training(ranked: list[dict[str, Any]], metric: str, by_user: Mapping[str, np.ndarray]) -> list[str]:
    """How the trained rows stand to the best of those that train nothing."""
    counted = [row for row in ranked if row.get("costs", {}).get("stop_reason") == COUNTED_ONCE]
    rules = [row for row in counted if base_model(row["model"]) not in _OF_TRAINED]
    trained = [row for row in ranked if row not in rules]
    if not rules or not trained:
        return []
    rule, limit = rules[0], value_of(rules[0], metric)
    does, meaning = _RULES.get(base_model(rule["model"]), _ANY_RULE)
    above = ranked[: ranked.index(rule)]
    below = [row["model"] for row in trained if row not in above or value_of(row, metric) == limit]
    if len(below) == len(trained):
        return [f"{rule['model']} trains nothing ({does}), and no trained row passes it: {meaning}."]
    errors = _standard_errors(trained[0], rule, by_user)
    by = "" if errors is None else f", {errors:.1f} standard errors"
    also = [row["model"] for row in trained[1:] if row["model"] not in below]
    others = f"; {_list(also)} {'passes' if len(also) == 1 else 'pass'} it too" if also else ""
    others += f"; {_list(below)} {'does' if len(below) == 1 else 'do'} not pass it" if below else ""
    return [
        f"The best row that trains nothing is {rule['model']} ({does}): {trained[0]['model']} is "
        f"{_distance(trained[0], rule, metric)}{by}{others}."
    ]


def _list(names: Any) -> str:
    """A, B and C."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
