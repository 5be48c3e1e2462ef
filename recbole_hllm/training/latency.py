"""How long one user waits for a list of items."""

import time
from statistics import median
from typing import Any

import numpy as np

# Users that are measured after one that warms up; of a slow model fewer, but three.
USERS, LEAST, SECONDS = 32, 3, 1.0
# How many items a list has, where there are as many.
ITEMS = 10


def user_latency(trainer: Any, loader: Any) -> float | None:
    """Median time in milliseconds to make the list of one user: reading the history, scores of all candidates, the
    best ten of them. Vectors of the catalogue are computed before, as for an evaluation.

    Args:
        trainer: after an evaluation.
        loader: of the rows to rank, from which users are taken at equal distances; None, or one of labelled rows, has
            no lists, and gives None.
    """
    if loader is None or trainer.labelled:
        return None
    n_rows, spent = len(loader._dataset), []
    rows = np.linspace(0, n_rows - 1, min(n_rows, USERS)).astype(np.int64)
    for row in (rows[0], *rows):
        start = time.perf_counter()
        scores = trainer.scores(loader, row[None])
        scores.topk(min(ITEMS, scores.shape[1])).indices.cpu()  # waits for a GPU
        spent.append(time.perf_counter() - start)
        if len(spent) > LEAST and sum(spent) > SECONDS:
            break
    return 1000 * median(spent[1:])
