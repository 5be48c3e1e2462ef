"""Weights to pick from, and groups of lengths."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.model.blend.weights import names_of_groups, number_of_weights, simplex


@given(parts=st.integers(2, 4), units=st.integers(1, 6))
def test_every_vector_of_multiples_that_adds_up_to_one(parts, units):
    found = simplex(parts, 1 / units)
    every = {shares for shares in product(range(units + 1), repeat=parts) if sum(shares) == units}
    assert {tuple(np.rint(weights * units).astype(int)) for weights in found} == every
    assert len(found) == len(every) == number_of_weights(parts, 1 / units)
    np.testing.assert_allclose(found.sum(1), 1)


def test_the_most_even_come_first_and_single_parts_last():
    found = simplex(3, 0.1)
    assert sorted(found[0]) == [0.3, 0.3, 0.4] and sorted(found[-1]) == [0, 0, 1]
    unevenness = (found**2).sum(1)
    assert (np.diff(unevenness) > -1e-12).all()


@pytest.mark.parametrize(
    ("bounds", "names"),
    [([], ["any"]), ([4], ["0 to 3", "4 or more"]), ([1, 2, 11], ["0", "1", "2 to 10", "11 or more"])],
)
def test_names_of_groups(bounds, names):
    assert names_of_groups(bounds) == names
