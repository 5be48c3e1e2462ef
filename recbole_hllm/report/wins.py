"""Users of whom one row finds the target better than another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_hllm.errors import UserError
from recbole_hllm.evaluation.columns import is_masked
from recbole_hllm.evaluation.segments import KEPT, by_user
from recbole_hllm.report.content import Content
from recbole_hllm.tables.table import value_of


@dataclass(frozen=True)
class Users:
    """Users of a row's test.

    Attributes:
        ids: (U,) internal ids, ascending.
        values: (U,) mean of a metric over the user's rows, and over seeds.
        ranks: (U,) the best rank of any of the user's targets, of the first seed; that without the history where the
            metric is.
        sums: (2, U) mean over seeds of what ``evaluation.segments.by_user`` gives.
    """

    ids: np.ndarray
    values: np.ndarray
    ranks: np.ndarray
    sums: np.ndarray


@dataclass(frozen=True)
class Wins:
    """How many users one row serves better than another.

    Attributes:
        other: name of the other row.
        better, worse, equal: numbers of users.
        difference: mean over users of the row's value minus the other's.
    """

    other: str
    better: int
    worse: int
    equal: int
    difference: float


def users_of(folders: Sequence[Path], metric: str) -> Users | None:
    """Users of the test of a row's runs, one for each seed; None where no ranks are kept, no rank gives the metric, or
    the runs are not of the same users."""
    found = [_of_run(folder, metric) for folder in folders]
    kept = [one for one in found if one is not None]
    if not kept or len(kept) < len(found) or any(not np.array_equal(kept[0].ids, one.ids) for one in kept):
        return None
    values, sums = (np.mean(one, axis=0) for one in zip(*((run.values, run.sums) for run in kept), strict=True))
    return Users(kept[0].ids, values, kept[0].ranks, sums)


def _of_run(folder: Path, metric: str) -> Users | None:
    try:
        sums = by_user(folder, metric)
    except UserError:  # damaged: the row has its numbers all the same
        return None
    if sums is None:
        return None
    with np.load(folder / KEPT[0], allow_pickle=False) as arrays:
        users, ranks = arrays["user"], arrays["rank_masked" if is_masked(metric) else "rank"]
    ids, place = np.unique(users, return_inverse=True)
    best = np.full(len(ids), np.iinfo(np.int64).max, np.int64)
    np.minimum.at(best, place, ranks.astype(np.int64))
    return Users(ids, sums[0] / sums[1], best, sums)


def leader(content: Content, trained: Sequence[str]) -> str | None:
    """The row with the best value of the table's metric, of those named; None where none has one."""
    values = {name: value_of(content.row(name), content.metric or "") for name in trained}
    known = {name: value for name, value in values.items() if value is not None}
    return max(known, key=lambda name: known[name]) if known else None


def wins(users: dict[str, Users], named: str) -> list[Wins]:
    """The named row beside each other one of the same users.

    Args:
        users: row -> its users.
        named: one of them.
    """
    own = users[named]
    found = []
    for other, theirs in users.items():
        if other == named or not np.array_equal(own.ids, theirs.ids):
            continue
        gap = own.values - theirs.values
        counts = int((gap > 0).sum()), int((gap < 0).sum()), int((gap == 0).sum())
        found.append(Wins(other, *counts, float(gap.mean())))
    return found


def extremes(own: Users, theirs: Users, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Internal ids of users where a row is furthest ahead of another, and of those where it is furthest behind.

    The largest difference of the metric first, then the largest ratio of ranks, then the smallest id; no user without
    a difference.

    Args:
        own, theirs: of the same users.
        number: how many of each at most.
    """
    gap, ratio = own.values - theirs.values, np.log(theirs.ranks) - np.log(own.ranks)
    ahead, behind = np.lexsort((own.ids, -ratio, -gap)), np.lexsort((own.ids, ratio, gap))
    return (own.ids[ahead[gap[ahead] > 0][:number]], own.ids[behind[gap[behind] < 0][:number]])
