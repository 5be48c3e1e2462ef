"""Paired tests of rows against one of them, user by user.

A user's metric is the mean over the user's evaluated rows, and over the runs of a table's row; every user counts alike.
A test is of the differences between two rows for the same users. Arrays are NumPy's, pure numbers in and out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from recbole_hllm.evaluation.segments import by_user

# A verdict other than "no difference found" asks for a p value below it, after Holm's correction.
LEVEL = 0.05
BETTER, WORSE, NOTHING, NOT_CONVERGED = "better", "worse", "no difference found", "not converged"
# Of the bootstrap: how many samples of users; about how many users are drawn at a time; and the interval's ends.
_SAMPLES, _AT_ONCE, _ENDS = 2_000, 2_000_000, (2.5, 97.5)
# Users that a test needs at least.
_FEWEST = 2
# Differences of all users are the same where their spread is below this part of their mean.
_ROUNDING = 1e-12


def mean_by_user(folders: Sequence[Path], metric: str) -> np.ndarray | None:
    """(2, U) a row's sums of a metric over each user's evaluated rows, the mean over its runs, and the number of these
    rows, as ``by_user`` gives them; None where a run has none.

    Args:
        folders: of the runs.
    """
    runs = [by_user(folder, metric) for folder in folders]
    known = [run for run in runs if run is not None]
    return np.mean(known, axis=0) if known and len(known) == len(runs) else None


def add_tests(
    rows: Sequence[dict[str, Any]],
    reference: str,
    folders: Mapping[str, Sequence[Path]],
    how: str = "t-test",
    seed: int = 0,
) -> str:
    """Adds ``tests`` to each row but the reference: metric -> what ``paired_tests`` found and a ``verdict``.

    Args:
        rows: of a table; those that failed are left as they are, and so are metrics without a value for each user.
        reference: name of the row that the others are tested against.
        folders: of the runs of each row.
        how: ``t-test`` or ``wilcoxon``.
        seed: of the bootstrap.

    Returns:
        Why nothing was tested; empty where something was.
    """
    done = {row["model"]: row for row in rows if row.get("test_result") and "error" not in row}
    if reference not in done:
        return f"{reference} has no result to test the others against"
    base = done.pop(reference)
    names: list[tuple[str, str]] = []
    differences: list[np.ndarray] = []
    for metric in base["test_result"]:
        own = mean_by_user(folders[reference], metric)
        if own is None:
            continue
        for row in done:
            other = mean_by_user(folders[row], metric)
            if other is not None:
                names.append((row, metric))
                differences.append(other[0] / other[1] - own[0] / own[1])
    if not names:
        return f"no metric of {reference} and of another row is kept user by user"
    if len(differences[0]) < _FEWEST:
        return f"the test has {len(differences[0])} user"
    found = paired_tests(np.stack(differences, axis=1), how, seed)
    for (row, metric), test in zip(names, found, strict=True):
        converged = all(one["costs"].get("converged", False) for one in (base, done[row]))
        done[row].setdefault("tests", {})[metric] = {**test, "verdict": verdict(test, converged)}
    return ""


def verdict(test: Mapping[str, Any], converged: bool) -> str:
    """In words: more of the metric is better, as of every one that users have. The direction is that of what is tested:
    of signed ranks perhaps another one than that of the mean."""
    if not converged:
        return NOT_CONVERGED
    direction = test["effect"] or test["difference"]
    if test["p_holm"] >= LEVEL or not direction:
        return NOTHING
    return BETTER if direction > 0 else WORSE


def paired_tests(differences: np.ndarray, how: str, seed: int) -> list[dict[str, Any]]:
    """Tests of the mean or the ranks of differences being 0.

    Args:
        differences: (U, T) of each user, in each of T tests; U is at least 2.
        how: ``t-test`` (Student's, of the mean) or ``wilcoxon`` (of signed ranks, without users who do not differ).
        seed: of the bootstrap.

    Returns:
        For each test ``difference``, the mean; ``low`` and ``high``, ends of its 95 % interval (percentiles over
        samples of users, drawn with replacement, the same in all tests); ``effect``, see ``_effect``; ``p``, two-sided,
        where all users differ by the same that of a sign test; ``p_holm``, corrected for all T tests; and ``users``.
    """
    low, high = _intervals(differences, seed)
    means = differences.mean(0)
    alike = differences.std(0) <= _ROUNDING * np.abs(means)
    columns = list(zip(differences.T, alike, strict=True))
    p = np.array([_p_value(column, same, how) for column, same in columns])
    corrected = holm(p)
    return [
        {
            "difference": float(means[test]),
            "low": float(low[test]),
            "high": float(high[test]),
            "effect": _effect(*columns[test], how),
            "p": float(p[test]),
            "p_holm": float(corrected[test]),
            "users": len(differences),
        }
        for test in range(differences.shape[1])
    ]


def _p_value(differences: np.ndarray, alike: bool, how: str) -> float:
    """Of (U,) users' differences. Where they are all the same, that of a sign test; 1 where they are all 0."""
    if alike:
        return float(2.0 ** (1 - len(differences))) if differences[0] else 1.0
    test = stats.ttest_1samp(differences, 0) if how == "t-test" else stats.wilcoxon(differences)
    return float(test.pvalue)


def _effect(differences: np.ndarray, alike: bool, how: str) -> float | None:
    """The mean in standard deviations of the differences (Cohen's d of pairs); None where they are all the same. Of
    signed ranks the sum of those above 0 less that of those below, as a part of all (rank-biserial correlation)."""
    if how == "t-test":
        return None if alike else float(differences.mean() / differences.std(ddof=1))
    some = differences[differences != 0]
    ranks = stats.rankdata(np.abs(some))
    return float((np.sign(some) * ranks).sum() / ranks.sum()) if len(some) else None


def _intervals(differences: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(T,) lower and upper ends. A sample is a count of each user, so that many means are one product of matrices."""
    users, random, means = len(differences), np.random.default_rng(seed), []
    at_once = max(_AT_ONCE // users, 1)
    for begin in range(0, _SAMPLES, at_once):
        samples = min(at_once, _SAMPLES - begin)
        drawn = random.integers(0, users, (samples, users)) + users * np.arange(samples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=samples * users).reshape(samples, users)
        means.append(counts.astype(float) @ differences / users)
    low, high = np.percentile(np.concatenate(means), _ENDS, axis=0)
    return low, high


def holm(p: np.ndarray) -> np.ndarray:
    """(T,) p values corrected for all of them together, after Holm (1979): the k-th smallest of T times T - k + 1, none
    smaller than one before it, at most 1."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1)
    return corrected
