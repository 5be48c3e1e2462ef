"""Why an item is recommended: what each item of the history adds to its score, and how like it each of them is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_hllm.serving.recommender import Recommender
from recbole_hllm.serving.requests import Request
from recbole_hllm.serving.rows import FURTHER, Rows
from recbole_hllm.serving.served import ServedBlend

# Histories read at once: a long one is read once without each of its items.
_AT_ONCE = 64
# Items that are left out in turn, the last ones; a model of the whole history may read thousands.
MOST_EXPLAINED = 200


@dataclass(frozen=True)
class Reason:
    """An item of a history, beside a recommended one.

    Attributes:
        id: of the item of the history; of a text without an id the text itself.
        contribution: the recommended item's score less its score after the history without this item; None of a history
            of one item, without which there is nothing to score after.
        similarity: cosine of the two items' vectors as the items are scored, of EASE that of what they give to all
            items, of a Blend the mean over its parts; None of a text without an id.
    """

    id: str
    contribution: float | None
    similarity: float | None


def explain(recommender: Recommender, request: Request, item: str) -> list[Reason]:
    """What each item of the history adds to the score of an item; see ``explain_all``."""
    return explain_all(recommender, request, [item])[0]


@torch.no_grad()
def explain_all(recommender: Recommender, request: Request, items: Sequence[str]) -> list[list[Reason]]:
    """What each item of the history adds to the score of some items, exact: the history is read once without each.

    Args:
        recommender: that recommends them.
        request: whose history it is.
        items: the recommended ones.

    Returns:
        Of each of them, the items of the history that are read, the oldest first; the last 200 where there are more.

    Raises:
        DataError: an item is not known, or as ``Recommender.recommend``.
        ModelError: as there.
    """
    recommended = recommender.catalogue.numbers(items, "item")
    rows, further = recommender.rows_of([request])
    rows = rows.cut(recommender.served.longest)
    length = int(rows.lengths[0])
    first = max(0, length - MOST_EXPLAINED)
    parts = _with_and_without(rows, first, length)
    scores = torch.cat([_scores(recommender, some, further, recommended) for some in parts])
    less = scores[0] - scores[1:]
    history = rows.items[0, first:length].tolist()
    names = recommender.names_of(history, request)
    reasons = []
    for place, number in enumerate(recommended):
        contributions = less[:, place].tolist() if length > 1 else [None]
        similarities = _similarities(recommender, history, number)
        reasons.append([Reason(*reason) for reason in zip(names, contributions, similarities, strict=True)])
    return reasons


def _scores(recommender: Recommender, rows: Rows, further: Tensor | None, items: list[int]) -> Tensor:
    """(B, M) of some items."""
    served = recommender.served
    if isinstance(served, ServedBlend) and served.scores_all:
        return served.scores(rows, further)[:, items]
    scores, beside = served.users(rows, further) @ served.items[items].T, served.beside(rows)
    if beside is not None:
        for place, item in enumerate(items):
            own = beside.items == item
            scores[:, place].index_add_(0, beside.rows[own], beside.values[own].to(scores.dtype))
    return scores


def _with_and_without(rows: Rows, first: int, length: int) -> list[Rows]:
    """The row, then the row without its item at place ``first``, without the next one, and so on, some of them at a
    time; alone where it has one item."""
    kept = [list(range(length))]
    if length > 1:
        kept += [[place for place in range(length) if place != left_out] for left_out in range(first, length)]
    return [_of_places(rows, kept[begin : begin + _AT_ONCE]) for begin in range(0, len(kept), _AT_ONCE)]


def _of_places(rows: Rows, kept: list[list[int]]) -> Rows:
    items = [rows.items[0, places].tolist() for places in kept]
    times = None if rows.times is None else [rows.times[0, places].tolist() for places in kept]
    at = None if rows.at is None else rows.at.tolist() * len(kept)
    return Rows.of(items, times, at).to(rows.items.device)


def _similarities(recommender: Recommender, numbers: list[int], item: int) -> list[float | None]:
    known = [number for number in numbers if number < FURTHER]
    of_known = torch.tensor(known, dtype=torch.long, device=recommender.served.items.device)
    found = iter(recommender.served.similarities(of_known, item).tolist())
    return [next(found) if number < FURTHER else None for number in numbers]
