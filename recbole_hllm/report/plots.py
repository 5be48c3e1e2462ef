"""Figures as files, for papers: SVG, PNG or PDF by matplotlib, which the extra ``plots`` brings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_hllm.errors import ConfigError, MissingExtra
from recbole_hllm.report.figures import FRONT, Figure, Series

FORMATS = ("svg", "png", "pdf")
_MARKERS = "osD^v"
_DASHES = ("-", "--", ":", "-.")
_COLOURS = 10  # of matplotlib's cycle


def check_plots(formats: Sequence[str]) -> None:
    """Raises ConfigError for a format there is none of, and MissingExtra where matplotlib is not installed."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"plots: '{name}' is not one of {', '.join(FORMATS)}")
    if formats:
        _matplotlib()


def write_plots(folder: Path, figures: Sequence[Figure], formats: Sequence[str]) -> list[Path]:
    """Writes each figure in each format into a folder that there is, ``<name>.<format>``.

    Raises:
        ConfigError, MissingExtra: see ``check_plots``; or a file cannot be written.
    """
    check_plots(formats)
    if not formats:
        return []
    made = []
    with _matplotlib().rc_context({"svg.hashsalt": "recbole-hllm", "text.parse_math": False}):
        for figure in figures:
            plot = _drawn(figure)
            for name in formats:
                made.append(folder / f"{figure.name}.{name}")
                _save(plot, made[-1])
    return made


def _save(plot: Any, path: Path) -> None:
    """Without a date the same numbers make the same file."""
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    try:
        plot.savefig(path, dpi=200, metadata=dates.get(path.suffix))
    except OSError as error:
        raise ConfigError(f"report: cannot write {path}: {error.strerror}") from error


def _matplotlib() -> Any:
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "plots: a figure as a file") from error
    return matplotlib


def _drawn(figure: Figure) -> Any:
    """A figure of matplotlib, of no window and no state of its own."""
    plot = _matplotlib().figure.Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = plot.subplots()
    rows = [series for series in figure.series if series.name != FRONT]
    for series in rows:
        _add(axes, series)
    for series in figure.series:
        if series.name == FRONT:
            axes.plot(*zip(*series.points, strict=True), "--", color="0.5", linewidth=1, zorder=1, label=FRONT)
    axes.set(xlabel=figure.across, ylabel=figure.up, title=figure.title)
    if figure.logarithmic:
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", ncols=1 + len(rows) // 12)
    return plot


def _add(axes: Any, series: Series) -> None:
    """Draws the points of a row; a name may begin with an underscore, which matplotlib's legends leave out."""
    number = series.number
    style = {"linestyle": _DASHES[number // _COLOURS % len(_DASHES)] if series.line else "none"}
    marker = _MARKERS[number // _COLOURS % len(_MARKERS)]
    name = f"\u200b{series.name}" if series.name.startswith("_") else series.name
    places = zip(*series.points, strict=True)
    axes.plot(*places, **style, marker=marker, markersize=2.5 if series.line else 6, color=f"C{number % _COLOURS}",
              label=name)  # fmt: skip
    if series.label:
        axes.annotate(series.label, series.points[-1], xytext=(6, 3), textcoords="offset points", fontsize="x-small")
