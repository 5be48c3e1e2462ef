"""What is drawn: training curves, and quality against cost with its Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recbole_hllm.evaluation.metrics import is_smaller_better
from recbole_hllm.report.content import Content
from recbole_hllm.report.pareto import front
from recbole_hllm.tables.costs import format_large, format_milliseconds
from recbole_hllm.tables.table import value_of
from recbole_hllm.units import format_bytes, format_count, format_seconds

FRONT = "Pareto front"


@dataclass(frozen=True)
class Series:
    """Points of one row, joined by a line or alone.

    Attributes:
        name: of the row; ``FRONT`` for the line of the front.
        points: (x, y).
        notes: what each point says when it is looked at.
        line: whether the points are joined.
        label: written beside the last point; empty: nothing.
        number: decides colour and shape, the same in each figure of a table.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    notes: tuple[str, ...]
    line: bool
    label: str = ""
    number: int = 0


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        name: of its file, without an ending.
        title: one line.
        across, up: names of the axes.
        series: what is drawn.
        logarithmic: the axis across is.
        of_bytes: the axis across counts bytes.
        note: what a reader should know; empty: nothing.
    """

    name: str
    title: str
    across: str
    up: str
    series: tuple[Series, ...]
    logarithmic: bool = False
    of_bytes: bool = False
    note: str = ""


# Costs with a figure -> the axis, and how a value is written. The first that any row has counts, of those in a line.
_COSTS: dict[tuple[str, ...], tuple[str, Any]] = {
    ("seconds_to_best", "training_seconds"): ("training to the best validation (seconds)", format_seconds),
    ("flops_to_best",): ("training FLOPs to the best validation", format_large),
    ("user_latency_ms",): ("time for one user (milliseconds)", format_milliseconds),
    ("peak_memory_bytes",): ("peak memory (bytes)", format_bytes),
    ("parameters_inference",): ("parameters to recommend", format_count),
}


def figures_of(content: Content) -> list[Figure]:
    """All figures that there are numbers for."""
    figures = [*curves(content), *(_against(content, *one) for one in _COSTS.items())]
    return [figure for figure in figures if figure is not None]


def costs_of(rows: list[dict[str, Any]], names: Sequence[str]) -> tuple[str, dict[str, float]]:
    """The first of some costs that any row has, and its value in each row with a result that has one."""
    for name in names:
        values = {
            row["model"]: row["costs"][name]
            for row in rows
            if "error" not in row and (row.get("costs") or {}).get(name) is not None
        }
        if values:
            return name, values
    return names[0], {}


def fronts(content: Content) -> dict[str, list[str]]:
    """Cost -> the rows on the Pareto front of it and the table's metric, cheapest first."""
    found = {}
    for names in _COSTS:
        name, values = costs_of(content.rows, names)
        points = _quality(content, values)
        if len(points) > 1:
            found[name] = [list(points)[at] for at in front([one[:2] for one in points.values()])]
    return found


def _quality(content: Content, costs: dict[str, float]) -> dict[str, tuple[float, float, float]]:
    """Row -> cost, quality (more is better), and the metric itself."""
    metric = content.metric or ""
    sign = -1 if is_smaller_better(metric) else 1
    values = {name: value_of(content.row(name), metric) for name in costs}
    return {name: (costs[name], sign * value, value) for name, value in values.items() if value is not None}


def _against(content: Content, names: tuple[str, ...], axis: tuple[str, Any]) -> Figure | None:
    cost, costs = costs_of(content.rows, names)
    points, (across, written) = _quality(content, costs), axis
    if cost == "training_seconds":
        across = "training (seconds)"
    drawn = {name: point for name, point in points.items() if point[0] > 0}
    if len(drawn) < 2:
        return None
    best = [list(points)[at] for at in front([point[:2] for point in points.values()])]
    series = [
        Series(
            name,
            ((point[0], point[2]),),
            (f"{name}: {content.metric} {point[2]:.4f}, {written(point[0])}",),
            line=False,
            label=name if name in best else "",
            number=content.number(name),
        )
        for name, point in drawn.items()
    ]
    line = [drawn[name] for name in best if name in drawn]
    series.append(Series(FRONT, tuple((point[0], point[2]) for point in line), ("",) * len(line), line=True))
    free = [name for name in points if name not in drawn]
    note = f"Not drawn, as it is 0 there: {', '.join(free)}." if free else ""
    return Figure(
        f"quality-{cost.replace('_', '-')}", f"{content.metric} against {across.partition(' (')[0]}", across,
        str(content.metric), tuple(series), logarithmic=True, of_bytes=cost.endswith("_bytes"), note=note,
    )  # fmt: skip


def curves(content: Content) -> list[Figure]:
    """The metric in validation by epoch and by time of training, and the training loss; models that are trained once,
    with a single point, are left out."""
    runs = {name: run.curve for name, run in content.runs.items() if len(run.curve) > 1}
    numbers = {name: content.number(name) for name in runs}
    up = f"{content.metric} in validation"
    found = [
        _curve("validation-epochs", up, "epoch", runs, numbers, _by_epoch("score")),
        _curve("validation-seconds", f"{up} over time", "training (seconds)", runs, numbers, _by_time),
        _curve("loss", "training loss, relative to the first", "epoch", runs, numbers, _relative_loss),
    ]
    return [figure for figure in found if figure is not None]


def _curve(
    name: str, title: str, across: str, runs: dict[str, list[dict[str, Any]]], numbers: dict[str, int], places: Any
) -> Figure | None:
    logarithmic = across != "epoch"
    series = []
    for row, points in runs.items():
        drawn = tuple(places(points))
        if len(drawn) > 1:
            best = max(y for _, y in drawn)
            notes = tuple(
                f"{row}: {across.partition(' (')[0]} {x:,.6g}, {y:.4f}{' (highest)' if y == best else ''}"
                for x, y in drawn
            )
            series.append(Series(row, drawn, notes, line=True, number=numbers[row]))
    up = title.partition(" in validation")[0] if name != "loss" else "loss / first loss"
    return Figure(name, title, across, up, tuple(series), logarithmic) if series else None


def _by_epoch(value: str) -> Any:
    return lambda points: [(one["epoch"] + 1, one[value]) for one in points if one[value] is not None]


def _by_time(points: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [
        (one["training_seconds"], one["score"])
        for one in points
        if one["score"] is not None and one["training_seconds"]
    ]


def _relative_loss(points: list[dict[str, Any]]) -> list[tuple[float, float]]:
    losses = _by_epoch("loss")(points)
    first = losses[0][1] if losses else 0.0
    return [(x, y / first) for x, y in losses if math.isfinite(y / first)] if first else []
