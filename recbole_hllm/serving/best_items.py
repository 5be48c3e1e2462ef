"""The best items of the catalogue for some requests: those that an index finds, or all, less what is not wanted."""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from recbole_hllm.serving.catalogue import Catalogue
from recbole_hllm.serving.index import MOST_SCORES, Index
from recbole_hllm.serving.requests import Request
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import Beside, Served, ServedBlend

Found = tuple[np.ndarray, np.ndarray]


class Asked(Protocol):
    """What a Recommender has."""

    served: Served
    catalogue: Catalogue
    index: Index


def best_items(
    asked: Asked, rows: Rows, further: Tensor | None, requests: Sequence[Request], blocked: Sequence[Collection[int]]
) -> list[Found]:
    """Numbers and scores of what is recommended to each, the best first.

    Args:
        asked: the Recommender.
        rows, further: histories, as ``Served.users`` takes them.
        requests: whose they are.
        blocked: numbers of items that are not recommended to each.
    """
    served = asked.served
    if isinstance(served, ServedBlend) and served.scores_all:
        scored = _scores_of_all(served, rows, further)
        return [_best_of_all(asked, *one) for one in zip(scored, requests, blocked, strict=True)]
    users, beside = served.users(rows, further), served.beside(rows)
    found = _candidates(asked, users, beside, requests, blocked)
    return [
        _chosen(asked, found[row], row, users[row], beside, requests[row], blocked[row]) for row in range(len(requests))
    ]


# ---- where a part scores all items ----


def _scores_of_all(served: ServedBlend, rows: Rows, further: Tensor | None) -> Iterator[np.ndarray]:
    """(N,) scores of each row."""
    at_once = max(1, MOST_SCORES // len(served.items))
    for first in range(0, len(rows.lengths), at_once):
        yield from served.scores(rows.some(first, first + at_once), further).cpu().numpy()


def _best_of_all(asked: Asked, scores: np.ndarray, request: Request, blocked: Collection[int]) -> Found:
    wanted = asked.catalogue.listed[: len(scores)].copy()
    if request.among is not None:
        among = np.zeros_like(wanted)
        among[asked.catalogue.numbers(request.among, "among")] = True
        wanted &= among
    wanted[list(blocked)] = False
    numbers = np.flatnonzero(wanted)
    scores = scores[numbers]
    if len(numbers) > request.k:
        best = scores >= np.partition(scores, -request.k)[-request.k]
        numbers, scores = numbers[best], scores[best]
    order = np.argsort(-scores, kind="stable")[: request.k]
    return numbers[order], scores[order]


# ---- where scores are products of vectors ----


def _candidates(
    asked: Asked, users: Tensor, beside: Beside | None, requests: Sequence[Request], blocked: Sequence[Collection[int]]
) -> dict[int, Found]:
    """Numbers and scores of the products, among which the best of each row are but for what is beside."""
    more = torch.bincount(beside.rows, minlength=len(users)).tolist() if beside is not None else [0] * len(users)
    free = [row for row, request in enumerate(requests) if request.among is None]
    found: dict[int, Found] = {}
    if free:
        wanted = max(requests[row].k + len(blocked[row]) + more[row] for row in free)
        found = dict(zip(free, _searched(asked, users[free], wanted), strict=True))
    for row, request in enumerate(requests):
        if request.among is not None:
            numbers = torch.tensor(sorted(set(asked.catalogue.numbers(request.among, "among"))), dtype=torch.long)
            scored = asked.served.items[numbers.to(users.device)] @ users[row]
            found[row] = numbers.numpy(), scored.cpu().numpy()
    return found


def _searched(asked: Asked, users: Tensor, wanted: int) -> list[Found]:
    """Numbers and scores of the best items of each user, so many that ``wanted`` of them are on the list; more are
    asked for where removed ones, or such as are being added now, take places."""
    count = wanted
    while True:
        scores, numbers = (part.cpu().numpy() for part in asked.index.search(users, count))
        listed = asked.catalogue.listed
        fewest = (listed[np.minimum(numbers, len(listed) - 1)] & (numbers < len(listed))).sum(axis=1).min()
        if fewest >= wanted or count >= len(asked.served.items):
            return list(zip(numbers, scores, strict=True))
        count *= 2


def _chosen(
    asked: Asked,
    found: Found,
    row: int,
    user: Tensor,
    beside: Beside | None,
    request: Request,
    blocked: Collection[int],
) -> Found:
    """The best k of candidates, with what their scores have beside the product."""
    numbers, scores = found
    if beside is not None:
        own = beside.rows == row
        items, values = beside.items[own], beside.values[own]
        both = asked.served.items[items] @ user + values.to(user.dtype)
        numbers = np.concatenate([items.cpu().numpy(), numbers])
        scores = np.concatenate([both.cpu().numpy(), scores])
        numbers, first = np.unique(numbers, return_index=True)  # the first of two is that with both
        scores = scores[first]
        if request.among is not None:
            among = np.isin(numbers, asked.catalogue.numbers(request.among, "among"))
            numbers, scores = numbers[among], scores[among]
    listed = asked.catalogue.listed
    if (latest := numbers >= len(listed)).any():  # items that are being added now
        numbers, scores = numbers[~latest], scores[~latest]
    kept = listed[numbers] & ~np.isin(numbers, list(blocked)) & ~np.isneginf(scores)
    numbers, scores = numbers[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[: request.k]
    return numbers[order], scores[order]
