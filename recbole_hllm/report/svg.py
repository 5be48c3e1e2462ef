"""Figures as SVG inside the page: no script draws them, and the page's colours, light or dark, are theirs."""

import math
from collections.abc import Sequence
from html import escape

from recbole_hllm.report.figures import FRONT, Figure, Series

# The picture, and the part of it that the axes enclose.
WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 80, 456, 14, 278
# Colours of the style sheet, and after them other dashes and shapes.
COLOURS = 8
_DASHES = ("none", "7 4", "2 3", "9 3 2 3")
_LABEL = 7.2  # about the width of a letter
_DOT = 6  # half the width of a point


class Axis:
    """Places of values on a line, the ends at round numbers.

    Args:
        values: what is shown; positive where it is logarithmic.
        begin, end: pixels of the ends.
        logarithmic: equal ratios are equally far.
    """

    def __init__(self, values: Sequence[float], begin: float, end: float, logarithmic: bool) -> None:
        self.begin, self.end, self.logarithmic = begin, end, logarithmic
        self.ticks = _powers(values) if logarithmic else _steps(values)
        self.low, self.high = self._scaled(self.ticks[0]), self._scaled(self.ticks[-1])

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.begin + (self._scaled(value) - self.low) / (self.high - self.low) * (self.end - self.begin)


def _powers(values: Sequence[float]) -> list[float]:
    """Powers of ten around all values, four to eight; between those of a narrow range 2 and 5 times one, too."""
    if max(values) < 20 * min(values):
        return _between(min(values), max(values))
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high += high == low
    step = math.ceil((high - low) / 6)
    return [10.0**power for power in range(low, high + step, step)]


def _between(low: float, high: float) -> list[float]:
    first = math.floor(math.log10(low))
    ticks = [times * 10.0**power for power in range(first, first + 4) for times in (1, 2, 5)]
    begin = max(number for number, tick in enumerate(ticks) if tick <= low * (1 + 1e-9))
    end = next(number for number, tick in enumerate(ticks) if tick >= high and number > begin)
    return ticks[begin : end + 1]


def _steps(values: Sequence[float]) -> list[float]:
    """Four to eight multiples of 1, 2 or 5 times a power of ten around all values."""
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(power * times for times in (1, 2, 5, 10) if spread / (power * times) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    last += first == last
    return [step * number for number in range(first, last + 1)]


def drawn(figure: Figure) -> str:
    """A figure as ``<svg>``, with a name for those who do not see it; its rows are named in ``legend``."""
    points = [point for series in figure.series for point in series.points]
    across = Axis([x for x, _ in points], LEFT, RIGHT, figure.logarithmic)
    up = Axis([y for _, y in points], BOTTOM, TOP, False)
    name = f"{figure.title}; the tables of this page have the numbers"
    rows = [series for series in figure.series if series.name != FRONT]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">',
        *_grid(figure, across, up),
        *(_line(series, across, up, "front") for series in figure.series if series.name == FRONT),
        *(part for series in rows for part in _row(series, across, up)),
        *_labels(rows, across, up),
        "</svg>",
    ]
    return "\n".join(parts)


def legend(figure: Figure) -> str:
    """The rows of a figure beside their colours, as a list."""
    rows = [series for series in figure.series if series.name != FRONT]
    entries = "".join(
        f'<li><svg viewBox="0 0 28 12" aria-hidden="true"><g {_colour(series.number)}>{_sample(series)}</g></svg>'
        f"{escape(series.name)}</li>"
        for series in rows
    )
    return f'<ul class="legend">{entries}</ul>'


def _sample(series: Series) -> str:
    number = series.number
    if not series.line:
        return f'<path class="dot" d="{_shape(14, 6, number)}"/>'
    return f'<path class="line" d="M2 6H26" stroke-dasharray="{_DASHES[number // COLOURS % len(_DASHES)]}"/>'


def _colour(number: int) -> str:
    return f'class="c{number % COLOURS}"'


def _grid(figure: Figure, across: Axis, up: Axis) -> list[str]:
    parts = []
    for tick, number in zip(up.ticks, numbers(up.ticks), strict=True):
        y = f"{up(tick):.1f}"
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{up(tick) + 4:.1f}" text-anchor="end">{number}</text>')
    for tick, number in zip(across.ticks, numbers(across.ticks, figure.of_bytes), strict=True):
        x = f"{across(tick):.1f}"
        parts.append(f'<path class="grid" d="M{x} {TOP}V{BOTTOM}"/>')
        parts.append(f'<text x="{x}" y="{BOTTOM + 18}" text-anchor="middle">{number}</text>')
    middle = (TOP + BOTTOM) / 2
    parts.append(
        f'<text transform="rotate(-90 14 {middle})" x="14" y="{middle}" text-anchor="middle">{escape(figure.up)}</text>'
    )
    place = f'x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle"'
    return [*parts, f"<text {place}>{escape(figure.across)}</text>"]


def numbers(ticks: Sequence[float], of_bytes: bool = False) -> list[str]:
    """The numbers of an axis, all in one way: 0.05, 500, 10k, 200M; 1e+11, 1e+12 where one is too large for that;
    500 MB, 1 GB."""
    if of_bytes:
        return [_scaled(tick, (" B", " kB", " MB", " GB", " TB")) for tick in ticks]
    if all(tick == 0 or 1e-4 <= abs(tick) < 1e12 for tick in ticks):
        return [_scaled(tick, ("", "k", "M", "B")) if tick >= 1e4 else f"{tick:,.6g}" for tick in ticks]
    return [f"{tick:.0e}" if tick else "0" for tick in ticks]


def _scaled(value: float, units: Sequence[str]) -> str:
    number = min(int(math.log10(value * (1 + 1e-9))) // 3, len(units) - 1)
    return f"{value / 1000**number:.6g}{units[number]}"


def _line(series: Series, across: Axis, up: Axis, kind: str, dashes: str = "none") -> str:
    path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in series.points)
    return f'<path class="{kind}" d="M{path}" stroke-dasharray="{dashes}"/>'


def _row(series: Series, across: Axis, up: Axis) -> list[str]:
    """The line of a row, and its points, which say their numbers when they are pointed at."""
    number = series.number
    parts = [f"<g {_colour(number)}>"]
    if series.line:
        parts.append(_line(series, across, up, "line", _DASHES[number // COLOURS % len(_DASHES)]))
    for (x, y), note in zip(series.points, series.notes, strict=True):
        title = f"<title>{escape(note)}</title>"
        if series.line:
            parts.append(f'<circle class="spot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3">{title}</circle>')
        else:
            parts.append(f'<path class="dot" d="{_shape(across(x), up(y), number)}">{title}</path>')
    return [*parts, "</g>"]


def _shape(x: float, y: float, number: int) -> str:
    """A circle, a square, a triangle or a diamond round a place."""
    corners = (
        "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
        "m-4.5-4.5h9v9h-9z",
        "m0-6l5.5 10h-11z",
        "m0-6l6 6l-6 6l-6-6z",
    )
    return f"M{x:.1f} {y:.1f}{corners[number // COLOURS % len(corners)]}"


def _labels(rows: Sequence[Series], across: Axis, up: Axis) -> list[str]:
    """Names beside points, as many as cover neither each other nor another point; the legend has all."""
    dots = [point for series in rows if not series.line for point in series.points]
    taken = [(across(x) - _DOT, across(x) + _DOT, up(y)) for x, y in dots]
    parts = []
    for series in (one for one in rows if one.label):
        x, y = across(series.points[-1][0]), up(series.points[-1][1])
        width = _LABEL * len(series.label)
        for begin, anchor in ((x + 9, "start"), (x - 9 - width, "end")):
            free = all(abs(y - other) >= 14 or end <= begin or begin + width <= start for start, end, other in taken)
            if LEFT <= begin and begin + width <= RIGHT + 15 and free:
                taken.append((begin, begin + width, y))
                place = f'x="{x + 9 if anchor == "start" else x - 9:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}"'
                parts.append(f'<text class="name" {place}>{escape(series.label)}</text>')
                break
    return parts
