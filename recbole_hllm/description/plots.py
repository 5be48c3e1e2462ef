"""Plots of tables as SVG: bars and a curve."""

import math
from html import escape

from recbole_hllm.description.sections import Plot, Table

# The picture, and the part of it that the axes enclose, in pixels.
WIDTH, HEIGHT = 720, 310
LEFT, RIGHT, TOP, BOTTOM = 90, 710, 16, 214
_INK, _GRID, _FILL = "#333", "#ddd", "#2f6f9f"
_TICKS = 4


def drawn(table: Table) -> str:
    """The plot of a table that has one, as an ``<svg>`` with a name for those who do not see it."""
    plot = table.plot
    assert plot is not None, "the caller asks for it"
    labels = [row[0] for row in table.rows]
    name = f"{table.title or plot.up}: {plot.up} by {plot.across}; the table below has the numbers"
    top = nice_top(max(plot.values)) if plot.kind == "bars" else 1.0
    body = _bars(plot, labels, top) if plot.kind == "bars" else _curve(plot, labels)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}" font-size="14" '
        f'font-family="system-ui, sans-serif" fill="{_INK}">',
        *_grid(top, plot.up),
        *body,
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(plot.across)}</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def nice_top(value: float) -> float:
    """The least of 1, 2, 2.5, 4, 5, 8 and 10 times a power of ten that a value does not exceed; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10, 20) if step * power >= value)


def _x(place: float) -> float:
    return LEFT + place * (RIGHT - LEFT)


def _y(share: float) -> float:
    return BOTTOM - share * (BOTTOM - TOP)


def _grid(top: float, up: str) -> list[str]:
    """Lines and numbers of the axis that goes up, and its name."""
    middle = (TOP + BOTTOM) / 2
    parts = [f'<text transform="rotate(-90 14 {middle})" x="14" y="{middle}" text-anchor="middle">{escape(up)}</text>']
    for tick in range(_TICKS + 1):
        y = round(_y(tick / _TICKS), 1)
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}" stroke="{_INK if tick == 0 else _GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{top * tick / _TICKS:,.6g}</text>')
    return parts


def _bars(plot: Plot, labels: list[str], top: float) -> list[str]:
    width, straight = 1 / len(labels), len(labels) * max(map(len, labels)) < 70
    parts = []
    for place, (label, value) in enumerate(zip(labels, plot.values, strict=True)):
        x, y = _x((place + 0.1) * width), _y(value / top)
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{_x(0.8 * width) - LEFT:.1f}" height="{BOTTOM - y:.1f}" '
            f'fill="{_FILL}"><title>{escape(label)}: {value:,.6g}</title></rect>'
        )
        parts.append(_below(label, _x((place + 0.5) * width), straight))
    return parts


def _below(label: str, x: float, straight: bool) -> str:
    """The name of a bar, at an angle where the names would touch each other."""
    if straight:
        return f'<text x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{escape(label)}</text>'
    y = BOTTOM + 12
    turned = f'transform="rotate(-40 {x:.1f} {y})" x="{x:.1f}" y="{y}" text-anchor="end" font-size="12"'
    return f"<text {turned}>{escape(label)}</text>"


def _curve(plot: Plot, labels: list[str]) -> list[str]:
    """A line through the points, and one for what would be equal shares."""
    points = [(0.0, 0.0), *zip(plot.places, plot.values, strict=True), (1.0, 1.0)]
    line = " ".join(f"{_x(place):.1f},{_y(value):.1f}" for place, value in points)
    parts = [
        f'<line x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{TOP}" stroke="{_INK}" stroke-dasharray="4 4"/>',
        f'<polyline points="{line}" fill="none" stroke="{_FILL}" stroke-width="2"/>',
    ]
    for (place, value), label in zip(points[1:-1], labels, strict=True):
        title = f"<title>{escape(label)}: {value:.4f}</title>"
        parts.append(f'<circle cx="{_x(place):.1f}" cy="{_y(value):.1f}" r="4" fill="{_FILL}">{title}</circle>')
    for tick in range(_TICKS + 1):
        place = tick / _TICKS
        parts.append(f'<text x="{_x(place):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{place:g}</text>')
    return parts
