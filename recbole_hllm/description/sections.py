"""A description as sections of tables, the same for the console and the page."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from recbole_hllm.description.findings import percent
from recbole_hllm.description.numbers import QUANTILES
from recbole_hllm.units import MISSING

_BAR = 30  # characters of the longest bar on a console
_ENDS = (("first", "least"), ("last", "most"))
_NAMES = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class Plot:
    """What is drawn of a table.

    Attributes:
        kind: ``bars``, one for each row; ``curve``, through (0, 0) and (1, 1).
        values: of each row, heights.
        places: of each row, from 0 to 1, for a curve.
        across, up: names of the axes.
    """

    kind: str
    values: tuple[float, ...]
    across: str
    up: str
    places: tuple[float, ...] = ()


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first column is on the left, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    plot: Plot | None = None
    page_only: bool = False


@dataclass(frozen=True)
class Section:
    """A heading, sentences below it, and tables."""

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def sections_of(result: dict[str, Any]) -> list[Section]:
    """Everything that ``describe`` found, findings first."""
    unusual = result["look_at"] or ["Nothing unusual was found."]
    return [
        Section("Look at", tuple(unusual)),
        _overview(result),
        _lengths(result),
        _popularity(result),
        _times(result["times"]),
        _split(result),
        _cores(result),
        _texts(result["texts"]),
    ]


def to_console(result: dict[str, Any]) -> str:
    """The sections as plain text with aligned columns."""
    blocks = [f"{result['dataset']}, with the keys of {result['model']}{_given(result['keys'])}"]
    for section in sections_of(result):
        blocks.append(f"{section.title}\n{'=' * len(section.title)}")
        if section.sentences:
            blocks.append("\n".join(f"- {sentence}" for sentence in section.sentences))
        blocks += [_aligned(table) for table in section.tables if not table.page_only]
    return "\n\n".join(blocks) + "\n"


def _given(keys: dict[str, Any]) -> str:
    return "".join(f", {key}: {value}" for key, value in keys.items())


def _aligned(table: Table) -> str:
    columns, rows = table.columns, table.rows
    if table.plot and table.plot.kind == "bars":
        highest = max(table.plot.values) or 1
        bars = ("#" * round(_BAR * value / highest) for value in table.plot.values)
        columns, rows = (*columns, ""), tuple((*row, bar) for row, bar in zip(rows, bars, strict=True))
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [table.title] if table.title else []
    for row in (columns, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        cells[-1] = row[-1] if not columns[-1] else cells[-1]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(line for line in lines if line)


# ---- the sections ----


def _overview(result: dict[str, Any]) -> Section:
    users, items, interactions = (result[name] for name in ("users", "items", "interactions"))
    rows = [
        ("users", f"{users:,}"),
        ("items", f"{items:,}"),
        ("interactions", f"{interactions:,}"),
        ("density", percent(result["density"])),
        ("interactions of a user, mean", f"{interactions / users:.1f}"),
        ("interactions of an item, mean", f"{interactions / items:.1f}"),
        ("repeated pairs of user and item", _part(result["repeated_pairs"], interactions)),
    ]
    sentences = ("A row of the ready-made histories counts as the interaction with its target.",)
    given = sentences if result["ready_made_histories"] else ()
    return Section("Overview", given, (Table("", ("", "number"), tuple(rows)),))


def _lengths(result: dict[str, Any]) -> Section:
    tables = (
        _quantiles("Quantiles", {"interactions of a user": result["lengths"]}),
        _histogram("Users by their number of interactions", "interactions", "users", result["lengths"]),
    )
    return Section("Sequence lengths", (), tables)


def _popularity(result: dict[str, Any]) -> Section:
    popularity, items = result["popularity"], result["items"]
    rows = tuple(
        (f"most popular {percent(row['share'])}", f"{row['items']:,}", percent(row["interactions"]))
        for row in popularity["top"]
    )
    curve = Plot(
        "curve",
        tuple(row["interactions"] for row in popularity["top"]),
        "share of the items, most popular first",
        "share of the interactions",
        tuple(row["items"] / items for row in popularity["top"]),
    )
    tables = (
        _quantiles("Quantiles", {"interactions of an item": popularity["spread"]}),
        _histogram("Items by their number of interactions", "interactions", "items", popularity["spread"]),
        Table("Share of the interactions", ("items", "number", "interactions"), rows, curve),
    )
    return Section("Item popularity", (f"Gini coefficient {popularity['gini']:.3f}.",), tables)


def _times(times: dict[str, Any]) -> Section:
    kinds = tuple(
        (kind, percent(one["share"]), *(one.get(date) or _number(one[end]) for date, end in _ENDS))
        for kind, one in times["kinds"].items()
    )
    same = f"{percent(times['same'])} of the interactions have the time of the one before of the same user."
    tables = [Table("What the timestamps look like (dates in UTC)", ("", "interactions", "from", "to"), kinds)]
    if times["periods"]:
        rows = tuple((period["from"][:16], f"{period['count']:,}") for period in times["periods"])
        plot = Plot("bars", tuple(period["count"] for period in times["periods"]), "from (UTC)", "interactions")
        tables.append(Table("Interactions over time", ("from (UTC)", "interactions"), rows, plot, page_only=True))
    return Section("Times", (same,), tuple(tables))


def _split(result: dict[str, Any]) -> Section:
    how = f"Split by {result['split_by']}."
    split = result["split"]
    if split is None:
        return Section("Split", (how, f"It fails: {result['split_error']}."))
    held_out = split["valid"], split["test"]
    rows = [
        ("interactions", f"{split['train']['interactions']:,}", MISSING, MISSING),
        ("targets", MISSING, *(f"{part['targets']:,}" for part in held_out)),
        ("users", *(_part(part["users"], result["users"]) for part in split.values())),
    ]
    for label, name in (
        ("cold: item without training", "cold"),
        ("of a user without training", "new_users"),
        ("item already in the history", "leaked"),
        ("at the time of the item before", "tied"),
    ):
        rows.append((label, MISSING, *(_part(part[name], part["targets"]) for part in held_out)))
    rows.append(("different cold items", MISSING, *(f"{part['cold_items']:,}" for part in held_out)))
    return Section("Split", (how,), (Table("", ("", *_NAMES.values()), tuple(rows)),))


def _cores(result: dict[str, Any]) -> Section:
    totals = tuple(result[name] for name in ("users", "items", "interactions"))
    rows = [("all", *(f"{total:,}" for total in totals))]
    for row in result["cores"]:
        left = (row["users"], row["items"], row["interactions"])
        rows.append((f"k = {row['k']}", *(_part(number, total) for number, total in zip(left, totals, strict=True))))
    shares = tuple(row["interactions"] / totals[2] for row in result["cores"])
    plot = Plot("bars", (1.0, *shares), "k-core", "share of the interactions")
    sentence = (
        'A filter of k is --user_inter_num_interval="[k,inf)" --item_inter_num_interval="[k,inf)", again and again '
        "until all that are left have k interactions."
    )
    if result["ready_split"]:
        sentence = "The files of a ready split are not filtered: convert filtered data, and let a run split them."
    columns = ("", "users", "items", "interactions")
    return Section("What k-core filters would leave", (sentence,), (Table("", columns, tuple(rows), plot),))


def _texts(texts: dict[str, Any] | None) -> Section:
    if texts is None:
        return Section("Texts", ("There is no .item file.",))
    items = texts["items"]
    counts = [
        (f"rows of {texts['file']}", f"{texts['rows']:,}"),
        ("rows without an interaction", _part(texts["rows_without_interaction"], texts["rows"])),
        ("items without a row", _part(texts["without_row"], items)),
        ("items with a row and no text", _part(texts["without_text"], items)),
        ("items that share their text", _part(texts["shared"]["items"], items)),
    ]
    if texts["too_long"] is not None:
        label = f"texts of more than {texts['limit']} tokens"
        counts.append((label, _part(texts["too_long"], texts["token_sample"])))
    filled = tuple((field["name"], _part(field["filled"], items)) for field in texts["fields"])
    parts = [("whole text", texts["whole"]), *((field["name"], field) for field in texts["fields"])]
    tables = [
        Table("", ("", "number"), tuple(counts)),
        Table("Items with text", ("column", "items"), filled),
        *(_quantiles(f"Length in {unit}", {name: part[unit] for name, part in parts})
          for unit in ("characters", "words", "tokens")),
        *(_histogram(f"Items by the {unit} of their whole text", unit, "items", texts["whole"][unit], page_only=True)
          for unit in ("characters", "words", "tokens")),
    ]  # fmt: skip
    return Section("Texts", tuple(_of_tokens(texts)), tuple(table for table in tables if table and table.rows))


def _of_tokens(texts: dict[str, Any]) -> Iterable[str]:
    if texts["tokenizer"]:
        few = "" if texts["token_sample"] in (None, texts["whole"]["filled"]) else (
            f", of {texts['token_sample']:,} texts drawn at random"
        )  # fmt: skip
        yield f"Tokens are those of {texts['tokenizer']}{few}."
    elif texts["no_tokens"]:
        yield f"Words only, no tokens: {texts['no_tokens']}."


# ---- tables of one kind ----


def _quantiles(title: str, spreads: dict[str, dict[str, Any] | None]) -> Table:
    rows = tuple(
        (name, f"{one['mean']:.1f}", *(f"{value:,}" for value in one["quantiles"].values()))
        for name, one in spreads.items()
        if one is not None
    )
    return Table(title, ("", "mean", *QUANTILES), rows)


def _histogram(title: str, what: str, of: str, spread: dict[str, Any] | None, page_only: bool = False) -> Table:
    bins = spread["histogram"] if spread else []
    total = sum(row["count"] for row in bins)
    rows = tuple(
        (_range(row["from"], row["to"]), f"{row['count']:,}", percent(row["count"] / total)) for row in bins
    )
    plot = Plot("bars", tuple(row["count"] for row in bins), what, of)
    return Table(title, (what, of, "share"), rows, plot, page_only)


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,}-{most:,}"


def _part(number: int | None, total: int) -> str:
    """A number, and which share that is."""
    if number is None:
        return MISSING
    return f"{number:,} ({percent(number / total)})" if total else f"{number:,}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:g}"
