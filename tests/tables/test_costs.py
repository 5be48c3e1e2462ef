"""The table of costs below the first."""

from recbole_hllm.tables.costs import COST_COLUMNS, cost_lines, format_large, format_milliseconds
from recbole_hllm.tables.table import to_csv, to_markdown

COSTS = {
    "seconds_to_best": 75.2, "item_tokens_to_best": 2_500_000.0, "flops_to_best": 1.26e15, "peak_memory_bytes": 2**30,
    "user_latency_ms": 0.424, "users_per_second": 1234.6, "disk_bytes": 1500,
}  # fmt: skip


def test_costs_as_people_read_them():
    rows = [
        {"model": "A|B", "costs": COSTS},
        {"model": "C", "costs": {**dict.fromkeys(COSTS), "seconds_to_best": 0.1}},
        {"model": "failed", "error": "x"},
        {"model": "of an earlier version", "costs": {"training_seconds": 1.0}},
    ]
    (heading,), lines = cost_lines(rows, lambda text: text.replace("|", "\\|"))
    assert heading.startswith("Costs (")
    assert lines[0] == (
        "| model | training to the best | item tokens to the best | FLOPs to the best | peak memory | one user "
        "| users/s | on disk |"
    )
    assert lines[2:] == [
        "| A\\|B | 1m 15s | 2.5M | 1.3e+15 | 1.1 GB | 0.42 ms | 1.2k | 1.5 kB |",
        "| C | 0.1s | – | – | – | – | – | – |",
    ]
    assert cost_lines(rows[2:], str) == []


def test_units():
    assert [format_milliseconds(value) for value in (None, 0.004, 9.94, 9.96, 1234.5)] == [
        "–", "0.00 ms", "9.94 ms", "10 ms", "1,234 ms",
    ]  # fmt: skip
    assert format_large(0.0) == "0"


def test_they_stand_in_the_table_and_its_columns():
    rows = [{"model": "A", "test_result": {"ndcg@10": 0.1}, "costs": {**COSTS, "converged": True}}]
    names, values = (line.split(",") for line in to_csv(rows).splitlines())
    cells = dict(zip(names, values, strict=True))
    assert {name: float(cells[name]) for name in COST_COLUMNS} == COSTS
    assert "\n\nCosts (training, item tokens and FLOPs up to the best validation" in to_markdown(rows, {})
