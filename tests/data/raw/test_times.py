"""Units of times, found or named, and Unix seconds."""

from datetime import datetime, timezone
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.raw.blocks import Block, trimmed
from recbole_hllm.data.raw.report import Report
from recbole_hllm.data.raw.times import Clock
from recbole_hllm.errors import ConfigError, DataError


def seconds(*texts, unit="", report=None, clock=None):
    block = Block("f.csv", np.arange(2, 2 + len(texts)), {"timestamp": pa.array(texts, pa.string())})
    clock, block = clock or Clock(unit), trimmed(block, "timestamp")
    return clock.seconds(block.only([clock.check(block)], report or Report(True))).columns[
        "timestamp"
    ].to_pylist(), clock


@pytest.mark.parametrize(
    "texts, expected, name",
    [
        (("1369699200", " 1369699201.5 "), ["1369699200", "1369699201.5"], "seconds"),
        (("1588687728923", "1588687728000"), ["1588687728.923", "1588687728"], "milliseconds"),
        (("1588687728923.0",), ["1588687728.923"], "milliseconds"),
        (("1588687728923456",), ["1588687728.923456"], "microseconds"),
        (("1588687728923456789",), ["1588687728.923456789"], "nanoseconds"),
        (("0", "1", "20"), ["0", "1", "20"], "small numbers, no clock times, as they are"),
        (("-5", "99999999999"), ["-5", "99999999999"], "seconds"),
        (("2018-07-07 22:09:11", "2018-07-07"), ["1531001351", "1530921600"], "ISO 8601 dates"),
        (("2018-07-07T22:09:11.25Z", "2018-07-08T00:09:11+02:00"), ["1531001351.25", "1531001351"], "ISO 8601 dates"),
        (("2018-07-07 22:09:11 +0000", "1969-12-31T23:59:59"), ["1531001351", "-1"], "ISO 8601 dates"),
    ],
)
def test_units_are_found(texts, expected, name):
    found, clock = seconds(*texts)
    assert [Fraction(text) for text in found] == [Fraction(text) for text in expected]
    assert clock.name_of("f.csv") == name


def test_whole_seconds_of_other_units_have_no_point():
    assert seconds("1588687728000")[0] == ["1588687728"]


@pytest.mark.parametrize(
    "texts, first, second",
    [
        (("1588687728", "1588687728923"), "line 2 is in seconds", "line 3 in milliseconds"),
        (("1588687728923", "0"), "line 2 is in milliseconds", "line 3 in seconds"),
        (("2018-07-07", "2018-07-08", "1588687728"), "line 2 is in ISO 8601", "line 4 in seconds"),
        (("1588687728923456", "2018-07-07"), "line 2 is in microseconds", "line 3 in ISO 8601"),
    ],
)
def test_several_units_in_one_file(texts, first, second):
    with pytest.raises(DataError, match=f"f.csv: the time of {first}, that of {second}; .*--time_unit="):
        seconds(*texts)


def test_several_units_in_blocks_of_one_file():
    clock = seconds("1588687728")[1]
    with pytest.raises(DataError, match="line 2 is in seconds, that of line 2 in milliseconds"):
        seconds("1588687728923", clock=clock)


def test_a_named_unit_wins():
    assert seconds("1588687728923", "500", unit="ms")[0] == ["1588687728.923", "0.5"]
    assert seconds("1588687728923", unit="s")[0] == ["1588687728923"]
    with pytest.raises(ConfigError, match="--time_unit=min must be one of s, ms, us, ns"):
        Clock("min")


def test_what_is_no_time():
    report = Report()
    found, _ = seconds("x", "1588687728", "", None, "2018-13-45", "nan", "1e400", "12:00", report=report)
    assert found == ["1588687728"]
    assert report.malformed == 7
    assert [line["line"] for line in report.shown] == [2, 4, 5, 6, 7]
    assert report.shown[0]["reason"] == "timestamp 'x' is neither a number nor an ISO 8601 date"
    assert report.shown[1]["reason"] == "timestamp is empty"
    assert seconds("x", report=Report())[0] == []


@given(st.datetimes(datetime(1973, 4, 1), datetime(2200, 1, 1)), st.sampled_from(["iso", "ms", "us", "ns"]))
def test_any_moment_is_the_same_in_every_unit(moment, unit):
    past = moment.replace(tzinfo=timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    microseconds = (past.days * 86400 + past.seconds) * 10**6 + past.microseconds
    if unit == "ms":
        microseconds -= microseconds % 1000
    text = {"iso": moment.isoformat(), "ms": microseconds // 1000, "us": microseconds, "ns": microseconds * 1000}[unit]
    assert Fraction(seconds(str(text))[0][0]) == Fraction(microseconds, 10**6)
