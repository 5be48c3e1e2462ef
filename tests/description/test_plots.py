"""Heights of bars and places of points."""

import re

import pytest

from recbole_hllm.description.plots import BOTTOM, LEFT, RIGHT, TOP, drawn, nice_top
from recbole_hllm.description.sections import Plot, Table


def table(values, kind="bars", places=(), labels=None):
    labels = labels or [f"row {place}" for place in range(len(values))]
    plot = Plot(kind, values, "across", "up", places)
    return Table("A & B", ("", "n"), tuple((label, "1") for label in labels), plot)


@pytest.mark.parametrize(
    "value, top", [(0, 1), (1, 1), (0.9, 1), (3, 4), (142, 200), (201, 250), (5841, 8000), (999, 1000), (0.034, 0.04)]
)
def test_the_top_of_an_axis(value, top):
    assert nice_top(value) == pytest.approx(top)


def test_bars_are_as_high_as_their_values():
    svg = drawn(table((50.0, 100.0, 0.0)))
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]
    assert heights == pytest.approx([(BOTTOM - TOP) / 2, BOTTOM - TOP, 0], abs=0.1)
    assert "<title>row 1: 100</title>" in svg and 'aria-label="A &amp; B: up by across' in svg
    lefts = [float(x) for x in re.findall(r'<rect x="([\d.]+)"', svg)]
    assert LEFT < lefts[0] < lefts[1] < lefts[2] < RIGHT


def test_names_of_bars_are_turned_where_they_would_touch():
    assert "rotate(-40" not in drawn(table((1.0, 2.0)))
    assert drawn(table((1.0,) * 20)).count("rotate(-40") == 20


def test_a_curve_goes_through_its_points():
    svg = drawn(table((0.4, 0.8), "curve", (0.1, 0.5)))
    (line,) = re.findall(r'points="([^"]+)"', svg)
    points = [tuple(map(float, point.split(","))) for point in line.split()]
    assert points[0] == (LEFT, BOTTOM) and points[-1] == (RIGHT, TOP)
    assert points[1] == pytest.approx((LEFT + 0.1 * (RIGHT - LEFT), BOTTOM - 0.4 * (BOTTOM - TOP)), abs=0.1)
    assert svg.count("<circle") == 2
