"""A second table behind the first: each row beside one of them, such as a student beside its teacher."""

from recbole_hllm.benchmark.table import MISSING, results_of, value_of

# Costs -> their names in the table.
_COSTS = {
    "parameters_trained": "parameters trained",
    "parameters_inference": "parameters to recommend",
    "training_seconds": "training time",
    "scoring_seconds": "scoring time",
}


def ratio_lines(rows: list[dict], reference: str) -> list[list[str]]:
    """A heading and a Markdown table; nothing where the reference has no result.

    Args:
        rows: as for the first table.
        reference: name of the row that the others are compared with.

    Returns:
        Metrics as differences in percent of the reference's, costs as multiples of the reference's.
    """
    first = next((row for row in rows if row["model"] == reference), {})
    metrics = list(results_of(first))
    others = [row for row in rows if row is not first and "error" not in row]
    if not metrics or not others:
        return []
    lines = [["model", *metrics, *_COSTS.values()], ["---"] + ["---:"] * (len(metrics) + len(_COSTS))]
    for row in others:
        cells = [_difference(value_of(row, metric), value_of(first, metric)) for metric in metrics]
        cells += [_multiple(row["costs"].get(cost), first["costs"].get(cost)) for cost in _COSTS]
        lines.append([row["model"].replace("|", "\\|"), *cells])
    heading = f"Relative to {reference}: metrics in percent, costs as multiples (scoring: of all test rows):"
    return [[heading], ["| " + " | ".join(line) + " |" for line in lines]]


def _difference(value, reference) -> str:
    if value is None or not reference:
        return MISSING
    return f"{100 * (value / reference - 1):+.1f} %"


def _multiple(value, reference) -> str:
    if value is None or not reference:
        return MISSING
    multiple = value / reference
    return f"{multiple:.3g} x" if multiple >= 0.001 else "< 0.001 x"
