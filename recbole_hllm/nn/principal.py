"""Principal components: the directions in which vectors differ most."""

import numpy as np
from numpy.typing import NDArray


def principal_components(vectors: np.ndarray, width: int, whitened: bool = False) -> NDArray[np.float64]:
    """(N, width) coordinates of vectors along the directions of largest variance, less their mean, the largest first.

    Of each direction and its opposite that one is taken whose largest number is positive.

    Args:
        vectors: (N, D), computed in float64.
        width: at most D, and less than N.
        whitened: each coordinate has variance 1; the vectors must vary in as many directions.

    Raises:
        ValueError: there are no so many directions.
    """
    exact = np.asarray(vectors, np.float64)
    number, size = exact.shape
    if not 1 <= width <= min(size, number - 1):
        raise ValueError(f"{number} vectors of {size} numbers have no {width} principal components")
    centred = exact - exact.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred / number)
    variances, directions = variances[::-1][:width], directions[:, ::-1][:, :width]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(width)])
    if not whitened:
        return centred @ (directions * signs)
    if variances[-1] <= size * np.finfo(np.float64).eps * max(variances[0], 0):
        raise ValueError(f"the vectors vary in fewer than {width} directions")
    return centred @ (directions * signs / np.sqrt(variances))
