"""Times in several units are named, with a line of the rarer one."""

import logging

import numpy as np
import pytest

from recbole_hllm import create_dataset
from recbole_hllm.data.clock import units_of

SECONDS = 1_600_000_000


@pytest.mark.parametrize(
    ("times", "units"),
    [
        ([], {}), ([1, 2, 3], {}), ([SECONDS, SECONDS + 5, 0], {}), ([SECONDS * 1000, 7], {}),
        ([SECONDS, SECONDS * 1000, SECONDS], {"seconds": 2, "milliseconds": 1}),
        ([SECONDS * 10**6, SECONDS * 10**9, 5], {"microseconds": 1, "nanoseconds": 1}),
        ([SECONDS + 0.5, SECONDS * 1e3, SECONDS * 1e3], {"seconds": 1, "milliseconds": 2}),
    ],
)  # fmt: skip
def test_units(times, units):
    assert {unit: rows.sum() for unit, rows in units_of(np.array(times)).items()} == units


@pytest.mark.parametrize("cached", [False, True])
def test_mixed_units_are_named_at_each_start(write_dataset, toy_config, tmp_path, caplog, monkeypatch, cached):
    monkeypatch.setattr("recbole_hllm.data.files.atomic.CACHED_BYTES", 1 if cached else 1 << 40)
    rows = [("u", f"i{n}", SECONDS + n) for n in range(6)] + [("v", f"i{n}", (SECONDS + n) * 1000) for n in range(4)]
    write_dataset(tmp_path, "toy", rows)
    for _ in range(2):
        caplog.clear()
        create_dataset(toy_config())
        (warning,) = [one.message for one in caplog.records if one.levelno == logging.WARNING]
        assert "toy.inter, column timestamp: times seem to be in several units" in warning
        assert "(6 in seconds, 4 in milliseconds), the first in milliseconds in line 8" in warning


def test_one_unit_is_no_warning(write_dataset, toy_config, tmp_path, caplog):
    write_dataset(tmp_path, "toy", [("u", f"i{n}", (SECONDS + n) * 1000) for n in range(6)])
    create_dataset(toy_config())
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
