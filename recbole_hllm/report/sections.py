"""The report as sections of tables, the same for every format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from recbole_hllm.report.compared import Compared
from recbole_hllm.report.content import Content
from recbole_hllm.report.figures import fronts
from recbole_hllm.report.wins import Wins
from recbole_hllm.tables.costs import COST_COLUMNS
from recbole_hllm.tables.reading import reading
from recbole_hllm.tables.table import header_lines, metric_cells, metric_names, notes_of, one_line, results_of
from recbole_hllm.tables.verdicts import T_TEST, verdict_tables
from recbole_hllm.units import MISSING, format_count, format_integer, format_seconds

_SEGMENTS = {"history_length": "of the user", "popularity": "of the target item"}
_FRONT_COLUMN = "on the front of"
_FRONT_NAMES = {
    "seconds_to_best": "training", "training_seconds": "training", "flops_to_best": "FLOPs",
    "user_latency_ms": "one user", "peak_memory_bytes": "memory", "parameters_inference": "parameters",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Its text, what it is sorted by (its text where that is None), and whether it is the best of its column."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows; the first cell of a row names it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def ranked(self) -> bool:
        """Whether it compares rows in numbers; the others say what is."""
        return any(cell.value is not None for row in self.rows for cell in row)


@dataclass(frozen=True)
class Section:
    """A heading, sentences, tables; how the names of figures begin that stand here, and whether examples do."""

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[str, ...] = ()
    examples: bool = False


def sections_of(content: Content, compared: Compared) -> list[Section]:
    """Everything that there is something to say of, results first."""
    beside = win_table(compared.named, content.metric or "", compared.wins) if compared.named else None
    found = [
        Section("Results", (*_read(content, compared), *notes_of(content.rows)), (results(content),)),
        _tests(content),
        Section("Quality and cost", (), (costs(content),), ("quality",)),
        Section("Curves", figures=("validation", "loss")),
        Section("Segments", (), tuple(segments(content))),
        Section("User by user", tuple(compared.sentences), (beside,) if beside else (), examples=True),
        Section("Protocol", (), (protocol(content), versions(content))),
    ]
    kept = [replace(one, tables=tuple(table for table in one.tables if table.rows)) for one in found]
    curves = any(len(run.curve) > 1 for run in content.runs.values())
    return [one for one in kept if one.sentences or one.tables or one.title == "Curves" and curves]


def _read(content: Content, compared: Compared) -> list[str]:
    return reading(content.rows, content.metric or "", {name: one.sums for name, one in compared.users.items()})


def results(content: Content) -> Table:
    """The table itself: metrics, the best bold, with deviations over seeds, and verdicts where rows were tested."""
    rows, metrics = content.rows, metric_names(content.rows)
    columns = {metric: _values(rows, metric) for metric in metrics}
    verdicts = [f"verdict in {content.metric}"] if any(row.get("tests") for row in rows) else []
    lines = []
    for index, row in enumerate(rows):
        costs = row.get("costs") or {}
        trained = costs.get("parameters_trained")
        lines.append(
            (
                Cell(str(row["model"])),
                *(columns[metric][index] for metric in metrics),
                *(Cell(_verdict(row, content.metric)) for _ in verdicts),
                Cell(format_count(trained), trained),
                Cell(format_integer(costs.get("epochs")), costs.get("epochs")),
                Cell("failed" if "error" in row else one_line(costs.get("stop_reason") or MISSING)),
            )
        )
    names = ("model", *metrics, *verdicts, "parameters trained", "epochs", "stopped")
    return Table("Results", names, tuple(lines))


def _values(rows: list[dict[str, Any]], metric: str) -> list[Cell]:
    cells = metric_cells(rows, metric)
    return [Cell(text, results_of(row).get(metric), best) for row, (text, best) in zip(rows, cells, strict=True)]


def _verdict(row: dict[str, Any], metric: str | None) -> str:
    return one_line(row.get("tests", {}).get(metric, {}).get("verdict", MISSING))


def _tests(content: Content) -> Section:
    """What the tests against one row found."""
    reference, how = str(content.header.get("compare_to")), content.header.get("compare_test", T_TEST)
    found = verdict_tables(content.rows, reference, how, content.metric or "")
    tables = [
        Table(
            one.title,
            ("model", *one.names),
            tuple((Cell(name), *(Cell(cell.text, cell.value) for cell in cells)) for name, cells in one.rows),
            one.sentence,
        )
        for one in found
    ]
    return Section(f"Tests against {reference}", (), tuple(tables))


def costs(content: Content) -> Table:
    """What each row cost, and against which costs it stands on the Pareto front."""
    fields = {
        "preparation_seconds": ("preparation", format_seconds),
        "training_seconds": ("training", format_seconds),
        **COST_COLUMNS,
    }
    done = [row for row in content.rows if "error" not in row and row.get("costs")]
    kept = {name: one for name, one in fields.items() if any(row["costs"].get(name) is not None for row in done)}
    on = fronts(content)
    lines = []
    for row in done:
        cells = [Cell(written(row["costs"].get(name)), row["costs"].get(name)) for name, (_, written) in kept.items()]
        fronts_of = [_FRONT_NAMES[cost] for cost, names in on.items() if row["model"] in names]
        lines.append((Cell(str(row["model"])), *cells, Cell(", ".join(fronts_of) or MISSING)))
    columns = ("model", *(label for label, _ in kept.values()), _FRONT_COLUMN)
    note = (
        "To the best: up to the best validation, whose weights are tested. One user: median time of a list. Users/s of "
        "the test. On disk: the weights kept. On the front: no other row is better in the metric of the table for that "
        "cost or less."
    )
    return Table("Costs", columns, tuple(lines), note)


def segments(content: Content) -> list[Table]:
    """The table's metric by the user's, and by the target item's, interactions in training."""
    parted = [row for row in content.rows if isinstance(row.get("segments"), dict) and "error" not in row]
    found = []
    for kind, whose in _SEGMENTS.items():
        rows = [row for row in parted if _has(row["segments"].get(kind), content.metric)]
        if not rows:
            continue
        labels = [part["segment"] for part in rows[0]["segments"][kind]]
        rows = [row for row in rows if [part["segment"] for part in row["segments"][kind]] == labels]
        columns = [[part[content.metric] for part in row["segments"][kind]] for row in rows]
        cells = [_marked(values, str(content.metric)) for values in zip(*columns, strict=True)]
        sizes = [part.get("targets", part.get("rows")) for part in rows[0]["segments"][kind]]
        names = (f"{label} ({format_integer(size)})" for label, size in zip(labels, sizes, strict=True))
        lines = tuple(
            (Cell(str(row["model"])), *line) for row, line in zip(rows, zip(*cells, strict=True), strict=True)
        )
        found.append(Table(f"{content.metric} by interactions {whose} in training", ("model", *names), lines))
    return found


def _has(parts: Any, metric: str | None) -> bool:
    return isinstance(parts, list) and bool(parts) and all(isinstance(part, dict) and metric in part for part in parts)


def _marked(values: Sequence[float | None], metric: str) -> list[Cell]:
    rounded = [{} if value is None else {"test_result": {metric: round(value, 4)}} for value in values]
    return [Cell(text, value, best) for (text, best), value in zip(metric_cells(rounded, metric), values, strict=True)]


def win_table(named: str, metric: str, found: Sequence[Wins]) -> Table:
    """For how many users the named row is better and worse than each other."""
    lines = []
    for one in found:
        counts = (one.better, one.worse, one.equal)
        cells = (Cell(format_integer(count), count) for count in counts)
        lines.append((Cell(one.other), *cells, Cell(f"{one.difference:+.4f}", one.difference)))
    columns = (f"{named} beside", "users better", "users worse", "equal", f"mean difference in {metric}")
    return Table(f"Users for whom {named} is better", columns, tuple(lines))


def protocol(content: Content) -> Table:
    """What all rows share."""
    lines = tuple((Cell(label), Cell(value)) for label, value in header_lines(content.header))
    return Table("Protocol", ("shared by all rows", "value"), lines)


def versions(content: Content) -> Table:
    """What made each row, and when; no rows where no run says it."""
    kept = {name: run.versions for name, run in content.runs.items() if run.versions}
    names = list(dict.fromkeys(name for of in kept.values() for name in of if name != "finished"))
    lines = tuple(
        (Cell(row), Cell(of.get("finished", MISSING)), *(Cell(of.get(name, MISSING)) for name in names))
        for row, of in kept.items()
    )
    return Table("Versions and dates", ("model", "finished (UTC)", *names), lines)
