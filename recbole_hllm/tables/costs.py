"""What the quality of each row costs, as a table of its own."""

from collections.abc import Callable
from typing import Any

from recbole_hllm.units import MISSING, format_bytes, format_count, format_seconds


def format_large(value: float | None) -> str:
    """1.2e+15, as FLOPs are written; 0 where there are none."""
    return MISSING if value is None else f"{value:.2g}"


def format_milliseconds(value: float | None) -> str:
    """0.42 ms, 13 ms."""
    return MISSING if value is None else f"{value:.2f} ms" if value < 9.95 else f"{value:,.0f} ms"


def _tokens(value: float | None) -> str:
    return format_count(None if value is None else round(value))


# Cost of a row -> its column, and how it is written.
COST_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "seconds_to_best": ("training to the best", format_seconds),
    "item_tokens_to_best": ("item tokens to the best", _tokens),
    "flops_to_best": ("FLOPs to the best", format_large),
    "peak_memory_bytes": ("peak memory", format_bytes),
    "user_latency_ms": ("one user", format_milliseconds),
    "users_per_second": ("users/s", _tokens),
    "disk_bytes": ("on disk", format_bytes),
}
_HEADING = (
    "Costs (training, item tokens and FLOPs up to the best validation; one user: median time of a list; users/s of the "
    "test; on disk: the weights kept):"
)


def cost_lines(rows: list[dict[str, Any]], escape: Callable[[str], str]) -> list[list[str]]:
    """A heading and a Markdown table; nothing where no row has these costs, as of runs of earlier versions."""
    done = [row for row in rows if "error" not in row and "seconds_to_best" in row.get("costs", {})]
    if not done:
        return []
    lines = [["model", *(name for name, _ in COST_COLUMNS.values())], ["---"] + ["---:"] * len(COST_COLUMNS)]
    for row in done:
        cells = (written(row["costs"].get(cost)) for cost, (_, written) in COST_COLUMNS.items())
        lines.append([escape(row["model"]), *cells])
    return [[_HEADING], ["| " + " | ".join(line) + " |" for line in lines]]
