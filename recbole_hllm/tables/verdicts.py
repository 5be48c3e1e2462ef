"""What the tests of a table's rows against one of them say, as tables below it."""

from typing import Any, NamedTuple

from recbole_hllm.tables.significance import LEVEL
from recbole_hllm.tables.table import results_of
from recbole_hllm.units import MISSING

T_TEST = "t-test"
# compare_test -> its name, and that of its effect size.
_NAMES = {
    T_TEST: ("t-test", "Cohen's d of pairs"),
    "wilcoxon": ("Wilcoxon signed-rank test", "rank-biserial correlation of pairs"),
}


class Cell(NamedTuple):
    """What is written, and the number that it is sorted by."""

    text: str
    value: float | None = None


class Verdicts(NamedTuple):
    """A table of tests.

    Attributes:
        title: in a few words.
        sentence: what was tested, and how.
        names: of its columns, after that of the row.
        rows: name of a row, and its cells.
    """

    title: str
    sentence: str
    names: list[str]
    rows: list[tuple[str, list[Cell]]]


def verdict_tables(rows: list[dict[str, Any]], reference: str, how: str, metric: str) -> list[Verdicts]:
    """Of all metrics difference and verdict, of one metric all that was found; no tables where nothing was tested.

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
    test, effect = _NAMES[how]
    heading = (
        f"Against {reference}, user by user: mean difference and verdict. Paired {test} over {users:,} test "
        f"users, each with the mean over the row's runs; p values corrected (Holm) for {number} tests, one for each "
        f"row and metric; better and worse: below {LEVEL}. No verdict where training did not converge."
    )
    if how != T_TEST:
        heading += " Verdicts are of ranks of differences, whose direction may be another one than that of the mean."
    shown = metric if metric in metrics else metrics[0]
    further = f"The same in {shown}, with the interval (bootstrap over users) and the effect size ({effect}):"
    in_full = ["difference", "95 % interval", "effect size", "p", "p (Holm)", "verdict"]
    everywhere = [(row["model"], _differences(row, metrics)) for row in tested]
    once = [(row["model"], _in_full(row["tests"].get(shown))) for row in tested]
    return [
        Verdicts("Difference and verdict", heading, metrics, everywhere),
        Verdicts(f"In {shown}", further, in_full, once),
    ]


def verdict_lines(rows: list[dict[str, Any]], reference: str, how: str, metric: str) -> list[list[str]]:
    """``verdict_tables`` as headings and tables of Markdown."""
    blocks = []
    for table in verdict_tables(rows, reference, how, metric):
        lines = [["model", *table.names], ["---"] + ["---:"] * len(table.names)]
        lines += [[name.replace("|", "\\|"), *(cell.text for cell in cells)] for name, cells in table.rows]
        blocks += [[table.sentence], ["| " + " | ".join(line) + " |" for line in lines]]
    return blocks


def _differences(row: dict[str, Any], metrics: list[str]) -> list[Cell]:
    tests = [row["tests"].get(metric) for metric in metrics]
    return [
        Cell(MISSING) if test is None else Cell(f"{test['difference']:+.4f} {test['verdict']}", test["difference"])
        for test in tests
    ]


def _in_full(test: dict[str, Any] | None) -> list[Cell]:
    if test is None:
        return [Cell(MISSING)] * 6
    effect = MISSING if test["effect"] is None else f"{test['effect']:+.3f}"
    return [
        Cell(f"{test['difference']:+.4f}", test["difference"]),
        Cell(f"{test['low']:+.4f} to {test['high']:+.4f}", test["low"]),
        Cell(effect, test["effect"]),
        Cell(_p(test["p"]), test["p"]),
        Cell(_p(test["p_holm"]), test["p_holm"]),
        Cell(test["verdict"]),
    ]


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
