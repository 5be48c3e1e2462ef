"""What the tests of a table's rows against one of them say, as tables of Markdown below it."""

from typing import Any

from recbole_hllm.tables.significance import LEVEL
from recbole_hllm.tables.table import results_of
from recbole_hllm.units import MISSING

_NAMES = {"t-test": "t-test", "wilcoxon": "Wilcoxon signed-rank test"}


def verdict_lines(rows: list[dict[str, Any]], reference: str, how: str, metric: str) -> list[list[str]]:
    """Headings and tables: of all metrics difference and verdict, of one metric all that was found; nothing where
    nothing was tested.

    Args:
        rows: of the table, with ``tests``.
        reference: name of the row that they were tested against.
        how: value of ``compare_test``.
        metric: the one to show in full; the first one tested where it was not.
    """
    tested = [row for row in rows if row.get("tests") and "error" not in row]
    if not tested:
        return []
    metrics = [name for name in results_of(tested[0]) if name in tested[0]["tests"]]
    number, users = sum(len(row["tests"]) for row in tested), next(iter(tested[0]["tests"].values()))["users"]
    heading = (
        f"Against {reference}, user by user: mean difference and verdict. Paired {_NAMES[how]} over {users:,} test "
        f"users, each with the mean over the row's runs; p values corrected (Holm) for {number} tests, one for each "
        f"row and metric; better and worse: below {LEVEL}. No verdict where training did not converge."
    )
    blocks = [[heading], _table(tested, metrics, _difference, metrics)]
    shown = metric if metric in metrics else metrics[0]
    names = ["difference", "95 % interval", "effect size", "p", "p (Holm)", "verdict"]
    further = f"The same in {shown}, with the interval (bootstrap over users) and the effect size (Cohen's d of pairs):"
    return [*blocks, [further], _table(tested, names, _in_full, [shown])]


def _table(tested: list[dict[str, Any]], names: list[str], written: Any, metrics: list[str]) -> list[str]:
    lines = [["model", *names], ["---"] + ["---:"] * len(names)]
    for row in tested:
        cells = [cell for metric in metrics for cell in written(row["tests"].get(metric))]
        lines.append([row["model"].replace("|", "\\|"), *(cells or [MISSING] * len(names))])
    return ["| " + " | ".join(line) + " |" for line in lines]


def _difference(test: dict[str, Any] | None) -> list[str]:
    return [MISSING] if test is None else [f"{test['difference']:+.4f} {test['verdict']}"]


def _in_full(test: dict[str, Any] | None) -> list[str]:
    if test is None:
        return []
    effect = MISSING if test["effect"] is None else f"{test['effect']:+.3f}"
    interval = f"{test['low']:+.4f} to {test['high']:+.4f}"
    return [f"{test['difference']:+.4f}", interval, effect, _p(test["p"]), _p(test["p_holm"]), test["verdict"]]


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
