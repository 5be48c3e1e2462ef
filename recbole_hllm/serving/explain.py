"""Why an item is recommended: what each item of the history adds to its score, and how like it each of them is."""

from dataclasses import dataclass

import torch

from recbole_hllm.serving.recommender import Recommender
from recbole_hllm.serving.requests import Request
from recbole_hllm.serving.rows import FURTHER, Rows


@dataclass(frozen=True)
class Reason:
    """An item of a history, beside a recommended one.

    Attributes:
        id: of the item of the history; of a text without an id the text itself.
        contribution: the recommended item's score less its score after the history without this item; None of a history
            of one item, without which there is nothing to score after.
        similarity: cosine of the two items' vectors as the items are scored, of a Blend the mean over its parts; None
            of a text without an id.
    """

    id: str
    contribution: float | None
    similarity: float | None


@torch.no_grad()
def explain(recommender: Recommender, request: Request, item: str) -> list[Reason]:
    """What each item of the history adds to the score of an item, exact: the history is read once without each.

    Args:
        recommender: that recommends it.
        request: whose history it is.
        item: the recommended one.

    Returns:
        The items of the history that are read, the oldest first.

    Raises:
        DataError: the item is not known, or as ``Recommender.recommend``.
        ModelError: as there.
    """
    number = recommender.catalogue.numbers([item], "item")[0]
    rows, further = recommender.rows_of([request])
    rows = rows.cut(recommender.served.length)
    length = int(rows.lengths[0])
    parts = _with_and_without(rows, length)
    users, beside = recommender.served.users(parts, further), recommender.served.beside(parts)
    scores = users @ recommender.served.items[number]
    if beside is not None:
        of_item = beside.items == number
        scores.index_add_(0, beside.rows[of_item], beside.values[of_item].to(scores.dtype))
    less = (scores[0] - scores[1:]).tolist() if length > 1 else [None]
    numbers = rows.items[0, :length].tolist()
    names = recommender.names_of(numbers, request)
    return [Reason(*reason) for reason in zip(names, less, _similarities(recommender, numbers, number), strict=True)]


def _with_and_without(rows: Rows, length: int) -> Rows:
    """The row, then the row without its first item, without its second, and so on; alone where it has one item."""
    kept = [list(range(length))]
    if length > 1:
        kept += [[place for place in range(length) if place != left_out] for left_out in range(length)]
    items = [rows.items[0, places].tolist() for places in kept]
    times = None if rows.times is None else [rows.times[0, places].tolist() for places in kept]
    at = None if rows.at is None else rows.at.tolist() * len(kept)
    return Rows.of(items, times, at).to(rows.items.device)


def _similarities(recommender: Recommender, numbers: list[int], item: int) -> list[float | None]:
    known = [number for number in numbers if number < FURTHER]
    of_known = torch.tensor(known, dtype=torch.long, device=recommender.served.items.device)
    found = iter(recommender.served.similarities(of_known, item).tolist())
    return [next(found) if number < FURTHER else None for number in numbers]
