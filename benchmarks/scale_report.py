"""Headline numbers and Markdown tables of what ``data_scale.py`` measured."""

from typing import Any

import numpy as np

LEAST_FOR_GROWTH = 1_000_000  # interactions: below, what does not grow weighs too much


def headline(found: dict[str, Any], size: str) -> dict[str, float | None]:
    """The numbers that are asked for by name, None where they were not measured. Times of RecBole are divided by
    those here, memory here by RecBole's: 10 is ten times as fast, 0.2 a fifth of the memory."""
    first, cached, window, prefix = (
        one_of(found.get("loading", []), size=size, format="text", first=first, row_kind=rows)
        for first, rows in ((True, "window"), (False, "window"), (None, "window"), (None, "prefix"))
    )
    stock, evaluated = found.get("stock") or {}, found.get("evaluation") or {}
    ratio = lambda side, other, key: stock[side][key] / stock[other][key] if stock else None  # noqa: E731
    return {
        "first_load_seconds": first.get("load_seconds"),
        "first_load_peak_gb": first.get("peak_gb"),
        "cached_load_seconds": cached.get("load_seconds"),
        "cached_resident_gb": cached.get("resident_gb"),
        "window_rows_per_second": window.get("rows_per_second"),
        "prefix_rows_per_second": prefix.get("rows_per_second"),
        "speedup_vs_recbole": ratio("stock", "here", "load_seconds"),
        "memory_vs_recbole": ratio("here", "stock", "peak_above_imports_gb"),
        "growth_exponent": growth(found.get("loading", [])),
        "eval_speedup_vs_recbole": evaluated.get("eval_speedup_vs_recbole"),
        "eval_memory_vs_recbole": evaluated.get("eval_memory_vs_recbole"),
    }


def one_of(loads: list[dict[str, Any]], first: bool | None = None, **wanted: Any) -> dict[str, Any]:
    """The load that has these values; with ``first`` None, one that batches were read from."""
    for load in loads:
        fits = "rows_per_second" in load if first is None else load["first"] == first
        if fits and all(load[name] == value for name, value in wanted.items()):
            return load
    return {}


def growth(loads: list[dict[str, Any]], format: str = "text") -> float | None:
    """The exponent of the first load's time over the number of interactions; None with fewer than two sizes."""
    chosen = {load["interactions"]: load["load_seconds"] for load in loads if is_first(load, format)}
    large = {count: seconds for count, seconds in chosen.items() if count >= LEAST_FOR_GROWTH}
    points = large if len(large) > 1 else chosen
    if len(points) < 2:
        return None
    return float(np.polyfit(np.log([*points]), np.log([*points.values()]), 1)[0])


def is_first(load: dict[str, Any], format: str) -> bool:
    return load["first"] and load["format"] == format and "rows_per_second" not in load


# ---- tables ----


def tables(result: dict[str, Any]) -> str:
    """All of it as Markdown."""
    parts = [machine(result), *(show(result[part]) for part, show in SHOWN.items() if result.get(part))]
    if result["notes"]:
        parts.append("\n".join(f"- {name}: {reason}" for name, reason in result["notes"].items()))
    return "\n\n".join(filter(None, parts))


def table(header: str, lines: list[list[str]]) -> str:
    """Markdown; the columns after a `:` in the header are numbers."""
    names, numbers = (part.split("|") for part in header.split(":"))
    cells = [[*names, *numbers], ["---"] * len(names) + ["---:"] * len(numbers), *lines]
    return "\n".join(f"| {' | '.join(word.strip() for word in line)} |" for line in cells)


def machine(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    size = f"{machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['threads']} threads"
    return f"{machine['processor']}, {size}; " + ", ".join(f"{name} {number}" for name, number in versions.items())


def loading(loads: list[dict[str, Any]]) -> str:
    return "\n\n".join(filter(None, [costs(loads), grown(loads), rows(loads)]))


def costs(loads: list[dict[str, Any]]) -> str:
    lines = [
        [
            load["size"], load["format"], "first" if load["first"] else "cached", load["row_kind"],
            f"{load['interactions']:,}", f"{load['load_seconds']:.2f} s", f"{load['cpu_seconds']:.2f} s",
            f"{load['interactions'] / load['load_seconds']:,.0f}", f"{load['peak_gb']:.2f} GB",
            f"{load['resident_gb']:.2f} GB", f"{load['imports_gb']:.2f} GB",
        ]
        for load in loads
    ]  # fmt: skip
    header = "size | format | load | rows : interactions | time | CPU | a second | peak | resident | of imports"
    return table(header, lines)


def grown(loads: list[dict[str, Any]]) -> str:
    exponents = {format: growth(loads, format) for format in dict.fromkeys(load["format"] for load in loads)}
    told = [f"{format} {number:.2f}" for format, number in exponents.items() if number is not None]
    return "The first load's time grows as the size to the power " + ", ".join(told) if told else ""


def rows(loads: list[dict[str, Any]]) -> str:
    lines = [
        [
            load["size"], load["format"], load["row_kind"], f"{load['rows']:,}", f"{load['rows_per_second']:,.0f}",
            f"{load['epoch_seconds']:.1f} s",
        ]
        for load in loads
        if "rows_per_second" in load
    ]  # fmt: skip
    return table("size | format | rows : of an epoch | a second | an epoch", lines) if lines else ""


def conversion(done: dict[str, float]) -> str:
    pace = f"{done['lines']:,}", f"{done['seconds']:.1f} s", f"{done['lines_per_second']:,.0f}"
    header = "conversion : lines | seconds | lines a second | peak"
    return table(header, [["PixelRec", *pace, f"{done['peak_gb']:.2f} GB"]])


def stock(both: dict[str, Any]) -> str:
    sides = both["stock"], both["here"]
    times = {
        "read": lambda side: side["seconds"]["read"],
        "make rows": lambda side: side["seconds"]["loaders"],
        "load to first batch": lambda side: side["load_seconds"],
        "the same, CPU time": lambda side: side["cpu_seconds"],
        "an epoch of batches": lambda side: side["epoch_seconds"],
        "the same epoch, CPU time": lambda side: side["epoch_cpu_seconds"],
    }
    lines = [line(name, *map(take, sides), "s") for name, take in times.items()]
    memory = [side["peak_above_imports_gb"] for side in sides]
    return table(
        f"{both['dataset']} : stock RecBole | here | ratio", [*lines, line("peak above imports", *memory, "GB")]
    )


def line(name: str, stock: float, here: float, unit: str) -> list[str]:
    return [name, f"{stock:.2f} {unit}", f"{here:.2f} {unit}", f"{stock / here:.1f}x"]


def evaluation(done: dict[str, Any]) -> str:
    words = f"{done['users']} users, {done['items']:,} items, vectors of {done['width']}, lists of {done['k']}"
    first = done["ways"]["RecBole's evaluator"]
    lines = [
        [
            name, f"{done['users'] / way['seconds']:,.0f}", f"{first['seconds'] / way['seconds']:.1f}x",
            f"{way['megabytes']:.0f} MB", f"{way['megabytes'] / first['megabytes']:.2f}",
        ]
        for name, way in done["ways"].items()
    ]  # fmt: skip
    return table(f"{words} : users a second | ratio | peak memory | ratio", lines)


def training(runs: list[Any]) -> str:
    lines = [
        [
            run["model"], str(run["costs"]["steps"]), f"{run['costs']['preparation_seconds']:.0f} s",
            f"{run['costs']['training_seconds']:.0f} s", f"{run['costs']['evaluation_seconds']:.0f} s",
            f"{run['seconds']:.0f} s", f"{run['peak_gb']:.2f} GB",
            *(f"{run['metrics']['test_result'][metric]:.4f}" for metric in ("recall@200", "ndcg@200")),
        ]
        for run in runs
        if run
    ]  # fmt: skip
    header = "model : steps | data and model | training | evaluation | all of it | peak | recall@200 | ndcg@200"
    return table(header, lines) if lines else ""


SHOWN = {
    "loading": loading, "conversion": conversion, "stock": stock, "evaluation": evaluation, "training": training,
}  # fmt: skip
