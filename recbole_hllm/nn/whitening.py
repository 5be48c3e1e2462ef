"""Whitening: a linear map after which the vectors of a catalogue have mean 0, and covariance 1 in every direction."""

import numpy as np
from numpy.typing import NDArray

# Added to the variance of each direction, as a share of the mean variance: what does not vary stays finite.
EPS = 1e-5

Affine = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(D,) mean m and (D, W) matrix A: a vector x becomes ``(x - m) @ A``."""


def zca(vectors: np.ndarray, groups: int = 1, eps: float = EPS) -> Affine:
    """Whitening that turns vectors no further than it must (ZCA): A = U (L + eps l)^(-1/2) U^T.

    U and L are eigenvectors and eigenvalues of the covariance, l is the mean variance. With several groups, each
    whitens its neighbouring D / groups numbers alone: relaxed whitening, which keeps what is correlated between groups
    (WhitenRec, arXiv 2402.10602).

    Args:
        vectors: (N, D) of all items, without padding; any type of float.
        groups: a divisor of D.
        eps: share of the mean variance.

    Raises:
        ValueError: groups is no divisor of D, or there are no vectors.
    """
    mean, centred = _centred(vectors)
    width = centred.shape[1]
    if groups < 1 or width % groups:
        raise ValueError(f"{width} numbers cannot be shared equally by {groups} groups")
    size, matrix = width // groups, np.zeros((width, width))
    for first in range(0, width, size):
        part = slice(first, first + size)
        directions, scales = _spectrum(centred[:, part], eps)
        matrix[part, part] = (directions * scales) @ directions.T
    return mean, matrix


def pca(vectors: np.ndarray, width: int | None = None, eps: float = EPS) -> Affine:
    """Whitening into the principal directions, those of most variance first: A = U (L + eps l)^(-1/2).

    Args:
        vectors: (N, D) of all items, without padding; any type of float.
        width: W, how many directions are kept; None: all D.
        eps: share of the mean variance.

    Raises:
        ValueError: width is not between 1 and D, or there are no vectors.
    """
    mean, centred = _centred(vectors)
    width = centred.shape[1] if width is None else width
    if not 1 <= width <= centred.shape[1]:
        raise ValueError(f"of vectors of {centred.shape[1]} numbers {width} directions cannot be kept")
    directions, scales = _spectrum(centred, eps)
    return mean, (directions * scales)[:, :width]


def whiten(vectors: np.ndarray, affine: Affine) -> NDArray[np.float32]:
    """(N, D) vectors -> (N, W) ``(x - m) @ A``, computed in float64."""
    mean, matrix = affine
    return ((np.asarray(vectors, dtype=np.float64) - mean) @ matrix).astype(np.float32)


def _centred(vectors: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(vectors) == 0:
        raise ValueError("no vectors to whiten")
    exact = np.asarray(vectors, dtype=np.float64)
    mean = exact.mean(axis=0)
    return mean, exact - mean


def _spectrum(centred: NDArray[np.float64], eps: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(D, D) eigenvectors of the covariance as columns and (D,) what each is scaled by, the largest variance first."""
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    variances = np.maximum(variances[::-1], 0)  # rounding makes tiny ones negative
    floor = eps * variances.mean() if variances.any() else 1.0  # vectors that are all the same become zeros
    return directions[:, ::-1], (variances + floor) ** -0.5
