"""Results of several models side by side, as Markdown, CSV, JSON and text for the console.

Everything here is a pure function of plain dicts, so a table can be made again from the run folders. A row:

    {"model": "HLLM",
     "test_result": {"recall@10": 0.0881, ...},          # names and values as RecBole's
     "costs": {"parameters_total": int, "parameters_trained": int, "epochs": int, "converged": bool,
               "stop_reason": str, "preparation_seconds": float, "training_seconds": float,
               "evaluation_seconds": float, "peak_memory_bytes": int}}

and ``segments``, what ``evaluation.segments.segment_table`` returns, where there is a test; of several runs
``deviations``, the standard deviation of each metric, and ``runs``, see ``tables.seeds.over_seeds``; ``tests`` against
another row, see ``tables.significance.add_tests``;

or, for a model that failed, ``{"model": "HLLM", "error": "what went wrong"}``, whose metrics, if it has any,
do not count; other keys go into the JSON as they are. The header is a dict of what all rows share: ``dataset``,
``users``, ``items``, ``interactions``, ``mean_length``, then ``split``, ``targets``, ``masking``, ``candidates``,
``metrics``, ``history_length``, ``seed``, ``precision``; absent keys are left out, further ones are shown after these.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from recbole_hllm.evaluation.columns import other_column
from recbole_hllm.evaluation.metrics import is_smaller_better
from recbole_hllm.storage.files import finite
from recbole_hllm.tables.costs import COST_COLUMNS, cost_lines
from recbole_hllm.tables.seeds import further_columns
from recbole_hllm.units import MISSING, format_bytes, format_count, format_integer, format_seconds

COSTS = (
    "parameters_total",
    "parameters_trained",
    "parameters_inference",
    "epochs",
    "converged",
    "stop_reason",
    "preparation_seconds",
    "training_seconds",
    "evaluation_seconds",
    "scoring_seconds",
    "peak_memory_bytes",
)
_STATISTICS = ("users", "items", "interactions", "mean_length")
_SETTINGS = ("split", "targets", "masking", "candidates", "metrics", "history_length", "seed", "precision")


def build_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One line per model: ``model``, its metrics, its costs as plain numbers, and ``error`` if any failed."""
    metrics = metric_names(rows)
    errors = ["error"] if any("error" in row for row in rows) else []
    # Runs of earlier versions have none of the further ones.
    costs = [*COSTS, *(cost for cost in COST_COLUMNS if cost not in COSTS and any(_cost(row, cost) for row in rows))]
    lines = [
        [
            row["model"],
            *(results_of(row).get(metric) for metric in metrics),
            *(_cost(row, cost) for cost in costs),
            *(row.get(error) for error in errors),
        ]
        for row in rows
    ]
    # dtype object: a missing value does not turn a column of counts into floats.
    table = pd.DataFrame(lines, columns=["model", *metrics, *costs, *errors], dtype=object)
    further = pd.DataFrame(further_columns(rows, metrics), index=table.index, dtype=object)
    return pd.concat([table, further], axis=1)


def _cost(row: dict[str, Any], cost: str) -> Any:
    return row.get("costs", {}).get(cost)


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The plain numbers of ``build_table``, comma-separated."""
    return build_table(rows).to_csv(index=False, lineterminator="\n")


def to_json(rows: list[dict[str, Any]], header: dict[str, Any]) -> str:
    """Header and rows as they are; numbers that are not finite become null."""
    return json.dumps(finite({"header": header, "rows": rows}), indent=2, ensure_ascii=False) + "\n"


def to_markdown(rows: list[dict[str, Any]], header: dict[str, Any], *further: list[str]) -> str:
    """The table as people read it: best values bold, header above, what to beware of below, ``further`` blocks of lines
    after that."""
    names, lines = _cells(rows, best="**{}**", escape=_escaped)
    alignment = ["---"] + ["---:"] * (len(names) - 1)
    table = ["| " + " | ".join(line) + " |" for line in (names, alignment, *lines)]
    above = [f"- {label}: {value}" for label, value in header_lines(header)]
    below = [f"- {note}" for note in notes_of(rows)]
    parts = [*cost_lines(rows, _escaped), *_segment_lines(rows, header)]
    return "\n\n".join("\n".join(block) for block in (above, table, below, *further, *parts) if block) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def to_console(rows: list[dict[str, Any]], header: dict[str, Any]) -> str:
    """The same table with aligned columns; ``*`` marks the best values."""
    names, lines = _cells(rows, best="{}*")
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    table = []
    for line in (names, ["-" * width for width in widths], *lines):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        table.append("  ".join(cells).rstrip())
    above = [f"{label}: {value}" for label, value in header_lines(header)]
    return "\n\n".join("\n".join(block) for block in (above, table, notes_of(rows)) if block) + "\n"


def metric_names(rows: list[dict[str, Any]]) -> list[str]:
    """All metrics of all rows, in order of their first appearance."""
    return list(dict.fromkeys(metric for row in rows for metric in results_of(row)))


def _cells(
    rows: list[dict[str, Any]], best: str, escape: Callable[[str], str] = str
) -> tuple[list[str], list[list[str]]]:
    """Column names, and the text of each row's cells; ``best`` is the format of a metric's best value."""
    metrics = metric_names(rows)
    columns = {metric: _metric_cells(rows, metric, best) for metric in metrics}
    names = ["model", *metrics, "parameters (total / trained)", "epochs", "stopped"]
    names += ["training", "evaluation", "peak memory"]
    lines = []
    for index, row in enumerate(rows):
        costs = row.get("costs", {})
        line = [row["model"], *(columns[metric][index] for metric in metrics)]
        total, trained = costs.get("parameters_total"), costs.get("parameters_trained")
        line.append(f"{format_count(total)} / {format_count(trained)}")
        line.append(format_integer(costs.get("epochs")))
        line.append("failed" if "error" in row else one_line(costs.get("stop_reason") or MISSING))
        line.append(format_seconds(costs.get("training_seconds")))
        line.append(format_seconds(costs.get("evaluation_seconds")))
        line.append(format_bytes(costs.get("peak_memory_bytes")))
        lines.append([escape(cell) for cell in line])
    return [escape(name) for name in names], lines


def results_of(row: dict[str, Any]) -> dict[str, float]:
    """A row's metrics; none for a row that failed or has nothing to test."""
    return {} if "error" in row else row.get("test_result") or {}


def value_of(row: dict[str, Any], metric: str) -> float | None:
    """A row's value of a metric; None where it is absent or not a finite number."""
    value = results_of(row).get(metric)
    return None if value is None or not math.isfinite(value) else float(value)


def _metric_cells(rows: list[dict[str, Any]], metric: str, best: str) -> list[str]:
    return [best.format(cell) if is_best else cell for cell, is_best in metric_cells(rows, metric)]


def metric_cells(rows: list[dict[str, Any]], metric: str) -> list[tuple[str, bool]]:
    """A metric of each row as text, in the digits the run kept, four to seven, and whether it is the best. Ties are all
    best; a value alone is not best, nor is 0 everywhere."""
    values = [value_of(row, metric) for row in rows]
    known = [value for value in values if value is not None]
    decimals = max([4, *(len(f"{value:.7f}".rstrip("0").split(".")[1]) for value in _kept_values(rows, metric))])
    winner = None
    if len(known) > 1 and any(known):
        winner = min(known) if is_smaller_better(metric) else max(known)
    cells = []
    for row, value in zip(rows, values, strict=True):
        cell = MISSING if value is None else f"{value:.{decimals}f}" + _deviation(row, metric, decimals)
        cells.append((cell, value is not None and value == winner))
    return cells


def _kept_values(rows: list[dict[str, Any]], metric: str) -> list[float]:
    """Values of a metric as runs kept them: of a mean those that it is of."""
    runs = [run for row in rows for run in row.get("runs", [row])]
    return [value for run in runs if (value := value_of(run, metric)) is not None]


def _deviation(row: dict[str, Any], metric: str, decimals: int) -> str:
    deviation = row.get("deviations", {}).get(metric)
    return "" if deviation is None else f" ± {deviation:.{decimals}f}"


def _segment_lines(rows: list[dict[str, Any]], header: dict[str, Any]) -> list[list[str]]:
    """Headings and Markdown tables of segments x models: in the metric that chose the epochs if it has segments, then,
    of labelled rows, in the others; a metric with the history left in and taken out, in both."""
    parted = [row for row in rows if "segments" in row and "error" not in row]
    if not parted:
        return []
    first = parted[0]["segments"]
    _, counted, *metrics = next(iter(first.values()))[0]  # "segment", "targets" or "rows", and the metrics
    chosen = str(header.get("valid_metric")).lower()
    shown = [chosen] if chosen in metrics else metrics[:1]
    shown += [other for metric in shown if (other := other_column(metric)) in metrics]
    if counted == "rows":  # few, and each of them says something else
        shown += [metric for metric in metrics if metric not in shown]
    return [block for metric in shown for block in _segments_of(parted, metric, counted)]


def _segments_of(parted: list[dict[str, Any]], metric: str, counted: str) -> list[list[str]]:
    names = ["interactions in training", counted, *(row["model"].replace("|", "\\|") for row in parted)]
    lines = [names, ["---"] + ["---:"] * (len(names) - 1)]
    for kind, label in (("history_length", "user"), ("popularity", "item")):
        for index, segment in enumerate(parted[0]["segments"][kind]):
            values = [row["segments"][kind][index][metric] for row in parted]
            results = [{} if value is None else {"test_result": {metric: round(value, 4)}} for value in values]
            cells = _metric_cells(results, metric, "**{}**")
            lines.append([f"{label} {segment['segment']}", format_integer(segment[counted]), *cells])
    item = "target item" if counted == "targets" else "item"
    heading = f"{metric} by how many interactions the user, and the {item}, has in training:"
    return [[heading], ["| " + " | ".join(line) + " |" for line in lines]]


def header_lines(header: dict[str, Any]) -> list[tuple[str, str]]:
    """(label, value) of what all rows share; the data set and its statistics share a line."""
    statistics = [f"{format_integer(header[key])} {key}" for key in _STATISTICS[:3] if key in header]
    if "mean_length" in header:
        statistics.append(f"mean length {header['mean_length']:.1f}")
    data_set = [str(header["dataset"])] if "dataset" in header else []
    lines = [("data set", ", ".join(data_set + statistics))] if data_set or statistics else []
    others = [key for key in header if key not in ("dataset", *_STATISTICS, *_SETTINGS)]
    for key in [*(key for key in _SETTINGS if key in header), *others]:
        value = header[key]
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        lines.append((key.replace("_", " "), one_line(text)))
    return lines


def notes_of(rows: list[dict[str, Any]]) -> list[str]:
    """What the reader must know before comparing: rows that did not converge, rows that failed."""
    notes = []
    stopped = [
        f"{row['model']} ({one_line(row['costs'].get('stop_reason') or 'reason unknown')})"
        for row in rows
        if "error" not in row and not row.get("costs", {}).get("converged", True)
    ]
    if stopped:
        notes.append(f"Stopped before convergence: {', '.join(stopped)}. No winner can be claimed.")
    notes += [f"{row['model']} failed: {one_line(row['error'])}" for row in rows if "error" in row]
    return notes


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(str(text).split())
