"""Whitening against NumPy's covariance."""

import numpy as np
import pytest

from recbole_hllm.nn.whitening import pca, whiten, zca


def _vectors(n=500, width=6, seed=0):
    random = np.random.default_rng(seed)
    return (random.normal(size=(n, width)) @ random.normal(size=(width, width)) + 3).astype(np.float32)


@pytest.mark.parametrize("method", [zca, pca])
def test_mean_is_zero_and_covariance_one(method):
    white = whiten(_vectors(), method(_vectors(), eps=0))

    assert white.dtype == np.float32
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=1e-4)


def test_zca_is_the_inverse_root_of_the_covariance():
    vectors = _vectors().astype(np.float64)
    mean, matrix = zca(vectors, eps=1e-3)
    covariance = np.cov(vectors.T, bias=True)
    shifted = covariance + 1e-3 * np.trace(covariance) / 6 * np.eye(6)

    np.testing.assert_allclose(mean, vectors.mean(0))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(matrix @ shifted @ matrix, np.eye(6), atol=1e-9)
    assert (np.linalg.eigvalsh(matrix) > 0).all()


def test_pca_keeps_the_directions_of_most_variance():
    vectors = np.random.default_rng(1).normal(size=(4000, 4)) * [1, 9, 3, 0.1]
    _, matrix = pca(vectors, width=2)

    assert matrix.shape == (4, 2)
    np.testing.assert_array_equal(np.abs(matrix).argmax(0), [1, 2])
    np.testing.assert_allclose(matrix, pca(vectors)[1][:, :2])


def test_groups_are_whitened_alone():
    vectors = _vectors()
    mean, matrix = zca(vectors, groups=2)

    for part in (slice(0, 3), slice(3, 6)):
        np.testing.assert_allclose(matrix[part, part], zca(vectors[:, part])[1])
    assert not matrix[:3, 3:].any() and not matrix[3:, :3].any()
    np.testing.assert_allclose(mean, vectors.astype(np.float64).mean(0))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_size_of_vectors_does_not_matter(scale):
    vectors = _vectors().astype(np.float64)

    scaled = whiten(vectors * scale, zca(vectors * scale))

    np.testing.assert_allclose(scaled, whiten(vectors, zca(vectors)), rtol=1e-4, atol=1e-5)


def test_what_does_not_vary_stays_finite():
    few = _vectors(n=3)  # rank 2 of 6
    assert np.isfinite(whiten(few, zca(few))).all() and np.abs(whiten(few, zca(few))).max() < 10
    same = np.ones((5, 6))
    np.testing.assert_array_equal(whiten(same, zca(same)), np.zeros((5, 6)))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="6 numbers cannot be shared equally by 4 groups"):
        zca(_vectors(), groups=4)
    with pytest.raises(ValueError, match="of vectors of 6 numbers 7 directions cannot be kept"):
        pca(_vectors(), width=7)
    with pytest.raises(ValueError, match="no vectors"):
        zca(np.zeros((0, 6)))
