"""A second table after the first: each row beside one of them, such as a student beside its teacher."""

from typing import Any

from recbole_hllm.tables.table import results_of, value_of
from recbole_hllm.units import MISSING, format_count, format_seconds

# Costs -> their names in the table, and how they are written.
_COSTS = {
    "parameters_trained": ("parameters trained", format_count),
    "parameters_inference": ("parameters to recommend", format_count),
    "preparation_seconds": ("preparation", format_seconds),
    "training_seconds": ("training", format_seconds),
    "scoring_seconds": ("scoring", format_seconds),
}


def ratio_lines(rows: list[dict[str, Any]], reference: str) -> list[list[str]]:
    """A heading and a Markdown table; nothing where the reference has no result.

    Args:
        rows: as for the first table.
        reference: name of the row that the others are compared with.

    Returns:
        The reference as it is; of the others metrics as differences in percent of its own, and costs with what multiple
        of its own they are.
    """
    first = next((row for row in rows if row["model"] == reference), {})
    metrics = list(results_of(first))
    others = [row for row in rows if row is not first and "error" not in row]
    if not metrics or not others:
        return []
    names = ["model", *metrics, *(name for name, _ in _COSTS.values())]
    lines = [names, ["---"] + ["---:"] * (len(names) - 1)]
    for row in (first, *others):
        values = [(value_of(row, metric), value_of(first, metric)) for metric in metrics]
        cells = [_value(value) if row is first else _difference(value, own) for value, own in values]
        for cost, (_, written) in _COSTS.items():
            value, own = row["costs"].get(cost), first["costs"].get(cost)
            cells.append(written(value) + ("" if row is first else _multiple(value, own)))
        lines.append([row["model"].replace("|", "\\|"), *cells])
    heading = (
        f"Relative to {reference}: metrics in percent, costs with their multiples (preparation: before the first "
        "epoch; scoring: of all test rows):"
    )
    return [[heading], ["| " + " | ".join(line) + " |" for line in lines]]


def _value(value: Any) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _difference(value: Any, reference: Any) -> str:
    if value is None or not reference:
        return MISSING
    return f"{100 * (value / reference - 1):+.1f} %"


def _multiple(value: Any, reference: Any) -> str:
    if value is None or not reference:
        return ""
    multiple = value / reference
    return f" ({multiple:.3g} x)" if multiple >= 0.001 else " (< 0.001 x)"
