"""Principal components against NumPy's singular values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.nn.principal import principal_components


def vectors(seed, number=40, size=6):
    random = np.random.default_rng(seed)
    return random.normal(size=(number, size)) * np.arange(1, size + 1) @ random.normal(size=(size, size)) + 5


@given(seed=st.integers(0, 10_000), width=st.integers(1, 6))
def test_components_are_those_of_a_singular_value_decomposition(seed, width):
    given = vectors(seed)
    left, values, _ = np.linalg.svd(given - given.mean(0), full_matrices=False)
    found = principal_components(given, width)
    np.testing.assert_allclose(np.abs(found), np.abs(left * values)[:, :width], atol=1e-7)
    white = principal_components(given, width, whitened=True)
    np.testing.assert_allclose(white.T @ white / len(given), np.eye(width), atol=1e-8)
    np.testing.assert_allclose(white, found / found.std(0), atol=1e-8)


def test_the_sign_does_not_depend_on_the_order_of_the_vectors():
    given = vectors(1)
    np.testing.assert_allclose(principal_components(given[::-1], 3), principal_components(given, 3)[::-1], atol=1e-10)


def test_all_components_keep_all_distances():
    given = vectors(2).astype(np.float32)
    found = principal_components(given, 6)
    distances = [np.linalg.norm(points[:, None] - points, axis=-1) for points in (given, found)]
    np.testing.assert_allclose(*distances, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("number", "width"), [(40, 7), (40, 0), (5, 5)])
def test_more_components_than_there_are_directions(number, width):
    with pytest.raises(ValueError, match=f"{number} vectors of 6 numbers have no {width} principal components"):
        principal_components(vectors(3, number), width)


def test_flat_vectors_have_no_whitened_components():
    flat = np.zeros((10, 3))
    flat[:, 0] = np.arange(10)
    assert principal_components(flat, 2)[:, 1] == pytest.approx(np.zeros(10))
    with pytest.raises(ValueError, match="vary in fewer than 2 directions"):
        principal_components(flat, 2, whitened=True)
