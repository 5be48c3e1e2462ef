"""Bytes as people read them."""

import pytest

from recbole_hllm.units import gigabytes


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0.00 GiB"), (5, "0.00 KiB"), (11, "0.01 KiB"), (2500, "2.44 KiB"), (5242, "5.12 KiB"), (5243, "0.01 MiB"),
        (432_000, "0.41 MiB"), (5 * 2**20, "5.00 MiB"), (5_368_709, "5.12 MiB"), (5_368_710, "0.01 GiB"),
        (2**28, "0.25 GiB"), (1.5 * 2**30, "1.50 GiB"), (3 * 2**40, "3072.00 GiB"),
    ],
)  # fmt: skip
def test_the_largest_unit_that_shows_a_number(size, text):
    assert gigabytes(size) == text
