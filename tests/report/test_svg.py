"""Figures inside the page."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.report.figures import FRONT, Figure, Series
from recbole_hllm.report.svg import BOTTOM, COLOURS, LEFT, RIGHT, TOP, Axis, drawn, legend, numbers

POSITIVE = st.floats(1e-6, 1e18)
ANY = st.floats(-1e9, 1e9)


def figure(series, logarithmic=False):
    return Figure("name", "title", "across", "up", tuple(series), logarithmic)


def points(*places, name="A", line=False, label="", number=0):
    return Series(name, places, tuple(f"note {place}" for place in range(len(places))), line, label, number)


@given(st.lists(POSITIVE, min_size=1, max_size=5))
def test_a_logarithmic_axis_encloses_all(values):
    axis = Axis(values, LEFT, RIGHT, logarithmic=True)
    assert all(LEFT - 1e-6 <= axis(value) <= RIGHT + 1e-6 for value in values)
    assert 2 <= len(axis.ticks) <= 9 and axis.ticks == sorted(axis.ticks)


@given(st.lists(ANY, min_size=1, max_size=5))
def test_an_axis_encloses_all(values):
    axis = Axis(values, BOTTOM, TOP, logarithmic=False)
    assert all(TOP - 1e-6 <= axis(value) <= BOTTOM + 1e-6 for value in values)
    assert 2 <= len(axis.ticks) <= 9


def test_ticks_of_a_narrow_range_are_close():
    assert Axis([6e8, 9e8], 0, 1, logarithmic=True).ticks == [5e8, 1e9]
    assert Axis([0.03, 0.4], 0, 1, logarithmic=True).ticks == [0.02, 0.05, 0.1, 0.2, 0.5]
    assert Axis([0.1, 90.0], 0, 1, logarithmic=True).ticks == [0.1, 1, 10, 100]


@pytest.mark.parametrize(
    ("ticks", "of_bytes", "written"),
    [
        ([0.0, 0.05, 0.1], False, ["0", "0.05", "0.1"]),
        ([500.0, 5_000.0, 20_000.0], False, ["500", "5,000", "20k"]),
        ([1e8, 1e9, 1e10], False, ["100M", "1B", "10B"]),
        ([1e11, 1e12, 1e13], False, ["1e+11", "1e+12", "1e+13"]),
        ([0.0, 1e-5], False, ["0", "1e-05"]),
        ([-2e4, 0.0], False, ["-20,000", "0"]),
        ([5e8, 1e9, 2e12], True, ["500 MB", "1 GB", "2 TB"]),
        ([1.0, 1e3, 1e6, 1e16], True, ["1 B", "1 kB", "1 MB", "10000 TB"]),
    ],
)
def test_all_numbers_of_an_axis_are_written_in_one_way(ticks, of_bytes, written):
    assert numbers(ticks, of_bytes) == written


def test_an_axis_of_bytes_has_their_units():
    plot = Figure("name", "title", "across", "up", (points((5e8, 0.1), (1e9, 0.2)),), True, of_bytes=True)
    assert ">500 MB</text>" in drawn(plot) and ">1 GB</text>" in drawn(plot) and ">0.2</text>" in drawn(plot)


def test_points_stand_at_their_places_and_say_their_numbers():
    root = ElementTree.fromstring(drawn(figure([points((0, 0), (10, 5), line=True)])))
    circles = root.findall(".//circle")
    assert [(float(one.get("cx")), float(one.get("cy"))) for one in circles] == [(LEFT, BOTTOM), (RIGHT, TOP)]
    assert [one.find("title").text for one in circles] == ["note 0", "note 1"]
    assert root.get("aria-label").startswith("title")


def test_names_are_escaped(hostile):
    plot = figure([points((1, 2), (3, 4), name=hostile, label=hostile[:20]), points((1, 1), name="b")])
    text = drawn(plot) + legend(plot)
    assert "<script" not in text and "&lt;script" in text
    ElementTree.fromstring(f"<p>{text}</p>")


def test_rows_beyond_the_colours_have_other_dashes_and_shapes():
    lines = drawn(figure([points((0, 0), (1, 1), name=str(n), line=True, number=n) for n in range(2 * COLOURS)]))
    assert lines.count('stroke-dasharray="7 4"') == COLOURS and 'class="c0"' in lines
    dots = drawn(figure([points((0, 0), name=str(n), number=n) for n in range(2 * COLOURS)]))
    assert len({re.sub(r"M\S+ \S+?m", "", path) for path in re.findall('class="dot" d="([^"]+)"', dots)}) == 2


def test_labels_do_not_cover_each_other():
    series = [points((5, 5), name=str(n), label="a long name") for n in range(3)] + [
        points((0, 0), name="x", label="b")
    ]
    assert drawn(figure(series)).count('class="name"') == 2


def test_a_label_covers_no_other_point():
    plot = drawn(figure([points((1, 1), (5, 5), label="ten letters"), points((5.2, 5), name="b"), points((9, 9))]))
    (label,) = re.findall('<text class="name" [^>]+>', plot)
    assert 'text-anchor="end"' in label


def test_a_label_stays_inside():
    plot = drawn(figure([points((1, 1)), points((2, 2), label="at the end")]))
    (label,) = re.findall('<text class="name" [^>]+>', plot)
    assert 'text-anchor="end"' in label


def test_the_front_is_a_line_and_no_entry_of_the_legend():
    plot = figure([points((1, 1)), Series(FRONT, ((1, 1), (2, 2)), ("", ""), True)])
    assert 'class="front"' in drawn(plot) and FRONT not in legend(plot)
