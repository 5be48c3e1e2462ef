"""Ranks of targets, and lists of the best items, from scores that are looked at in blocks of some rows and some items.

Items are ordered by score, the higher first, and of equal scores by id, the smaller first: nothing else decides, not
the size of a block or the length of a list. A block is small enough for the cache of a CPU. It is written once and read
a few times there: for the items that are better than the worst of the list so far, and for the number of scores above
that of each target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_hllm.evaluation.best_items import BestItems, check_numbers

# Scores of a block: 4 MB of float32, or on a GPU 256 MB.
_BLOCK, _BLOCK_ON_GPU = 1 << 20, 1 << 26
_ROWS = 256  # of a block, at most; of a catalogue with fewer items than a block has room for, as many as fit
_TILE = 16  # items of which only the best one is compared with the list so far
_INF = float("inf")


class ScoreTable:
    """Scores that are there already.

    Args:
        values: (B, N) of every row and item.
    """

    def __init__(self, values: Tensor) -> None:
        self.values, self.device = values, values.device
        self.n_rows, self.n_items = values.shape
        self.dtype = torch.promote_types(values.dtype, torch.float32)

    def fill(self, block: Tensor, part: slice, begin: int) -> None:
        """Writes the scores of some rows for the items from ``begin`` on into a (rows, items) block."""
        block.copy_(self.values[part, begin : begin + block.shape[1]])

    def of(self, part: slice, rows: Tensor, items: Tensor, block: Tensor) -> Tensor:
        """(P,) the scores of pairs of a row of the part and an item; ``block`` is free to be used."""
        return self.values[rows + part.start, items].to(self.dtype)


class ScoreProduct:
    """Scores that are the products of the rows' vectors and the items', computed block by block.

    Args:
        users: (B, D) a vector of each row.
        items: (N, D) a vector of each item, of the same type.
    """

    def __init__(self, users: Tensor, items: Tensor) -> None:
        self.users, self.items = users.detach(), items.detach()
        self.device, self.dtype = users.device, users.dtype
        self.n_rows, self.n_items = len(users), len(items)

    def fill(self, block: Tensor, part: slice, begin: int) -> None:
        """As ``ScoreTable.fill``."""
        torch.mm(self.users[part], self.items[begin : begin + block.shape[1]].T, out=block)

    def of(self, part: slice, rows: Tensor, items: Tensor, block: Tensor) -> Tensor:
        """As ``ScoreTable.of``. Products of one shape only, so that equal vectors have equal scores to the last bit."""
        width, found = block.shape[1], []
        for some, theirs in zip(rows.split(width), items.split(width), strict=True):
            columns = self.items[F.pad(theirs, (0, width - len(theirs)))]
            torch.mm(self.users[part], columns.T, out=block)
            found.append(block[some, torch.arange(len(some), device=self.device)])
        return torch.cat(found) if found else self.users.new_empty(0)


@dataclass(frozen=True)
class Ranking:
    """Where targets stand, and what stands first.

    Attributes:
        ranks: (P,) int64, 1 is the best. A target that is no candidate ranks just after the row's candidates.
        candidates: (P,) bool, whether the target is one: its score is above -inf.
        lists: (B, k) int64 ids of the best items, best first; 0 where a row has fewer candidates.
    """

    ranks: Tensor
    candidates: Tensor
    lists: Tensor


def rank(
    scores: ScoreTable | ScoreProduct,
    rows: Tensor,
    items: Tensor,
    masked: tuple[Tensor, Tensor] | None = None,
    k: int = 0,
) -> Ranking:
    """Ranks targets among all items but the padding item 0.

    Args:
        scores: of B rows and N items; -inf is no candidate.
        rows: (P,) the row of each target, ascending.
        items: (P,) the target, an item from 1 on.
        masked: rows and items, (M,) each in any order, that are no candidates either.
        k: length of the lists, at most N - 1; 0 makes none, and is faster.

    Raises:
        ModelError: the score of a target is not a number.
    """
    return rank_each(scores, rows, items, (masked,), k)[0]


def rank_each(
    scores: ScoreTable | ScoreProduct,
    rows: Tensor,
    items: Tensor,
    masks: Sequence[tuple[Tensor, Tensor] | None],
    k: int = 0,
) -> list[Ranking]:
    """``rank`` under each of several masks, of scores that are computed once."""
    cells = _BLOCK if scores.device.type == "cpu" else _BLOCK_ON_GPU
    width = max(1, min(scores.n_items - 1, cells // max(1, min(scores.n_rows, _ROWS))))
    height = max(1, min(scores.n_rows, cells // width))
    size = height * (width + -width % _tile(width, k))
    memories = [torch.empty(size, dtype=scores.dtype, device=scores.device) for _ in masks]
    nothing = torch.empty(0, dtype=torch.long, device=scores.device)
    pairs = [(nothing, nothing) if mask is None else (mask[0].to(scores.device), mask[1].to(scores.device))
             for mask in masks]  # fmt: skip
    parts: list[list[Ranking]] = [[] for _ in masks]
    for begin in range(0, scores.n_rows, height):
        part = slice(begin, min(begin + height, scores.n_rows))
        found = _rank_part(scores, part, _pairs_of(part, rows, items), pairs, k, width, memories)
        for rankings, ranking in zip(parts, found, strict=True):
            rankings.append(ranking)
    return [_together(rankings) if rankings else _empty(nothing, k) for rankings in parts]


def _empty(nothing: Tensor, k: int) -> Ranking:
    return Ranking(nothing, nothing.bool(), nothing.view(0, 1).expand(0, k))


def _together(parts: list[Ranking]) -> Ranking:
    arrays = zip(*((one.ranks, one.candidates, one.lists) for one in parts), strict=True)
    return Ranking(*map(torch.cat, arrays))


def _rank_part(
    scores: ScoreTable | ScoreProduct,
    part: slice,
    targets: tuple[Tensor, Tensor],
    masks: list[tuple[Tensor, Tensor]],
    k: int,
    width: int,
    memories: list[Tensor],
) -> list[Ranking]:
    """Ranks the targets of some rows under each mask. A block of scores is computed once, and copied for the other
    masks: nothing is left of one that was looked at."""
    blocks = [_block(memory, part.stop - part.start, width, k) for memory in memories]
    own = scores.of(part, *targets, blocks[0][:, :width])
    ones = [
        _Part(scores.n_items, targets, own.clone(), _pairs_of(part, *mask), k, width, block)
        for mask, block in zip(masks, blocks, strict=True)
    ]
    for number, begin in enumerate(range(1, scores.n_items, width)):
        start = min(begin, scores.n_items - width)
        scores.fill(ones[0].filled, part, start)
        for one in ones[1:]:
            one.filled.copy_(ones[0].filled)
        for one in ones:
            one.look_at(number, begin, start)
    return [one.ranking() for one in ones]


def _block(memory: Tensor, n_rows: int, width: int, k: int) -> Tensor:
    padded = width + -width % _tile(width, k)
    return memory[: n_rows * padded].view(n_rows, padded)


def _tile(width: int, k: int) -> int:
    """How many items are compared with a list by their best one: so few that there are more such groups than places."""
    return max(1, min(_TILE, width // (2 * k))) if k else 1


def _pairs_of(part: slice, rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    inside = (rows >= part.start) & (rows < part.stop)
    return rows[inside] - part.start, items[inside]


class _Part:
    """Some rows on their way through the catalogue, under one mask.

    Args:
        n_items: of the catalogue.
        targets: row and item of each.
        own: (P,) their scores, which this may write to.
        masked: row and item of what is no candidate.
        k: length of the lists.
        width: items of a block.
        block: memory for the scores of these rows and so many items, and the padding after them.
    """

    def __init__(
        self,
        n_items: int,
        targets: tuple[Tensor, Tensor],
        own: Tensor,
        masked: tuple[Tensor, Tensor],
        k: int,
        width: int,
        block: Tensor,
    ) -> None:
        self.n_items, self.width, self.block = n_items, width, block
        self.rows, self.items = targets
        self.filled = self.block[:, :width]
        self.best = BestItems(self.block, k, _tile(width, k)) if k else None
        self.own = own
        self.own[torch.isin(self._key(*targets), self._key(*masked))] = -_INF
        check_numbers(self.own)
        self.candidates = self.own > -_INF
        # A target's own score is the one it is compared by, whatever the last bit of it is in the block.
        values = torch.cat([self.own.new_full(masked[0].shape, -_INF), self.own])
        pairs = torch.cat([masked[0], self.rows]), torch.cat([masked[1], self.items])
        self.given = _InBlocks(*pairs, n_items, width)
        self.cells, self.values = self._cells(*pairs)[self.given.order], values[self.given.order]
        self.targets_in = _InBlocks(self.rows, self.items, n_items, width)
        self.slots = list(_slots(self.rows))
        self.above = torch.zeros_like(self.rows)

    def _key(self, rows: Tensor, items: Tensor) -> Tensor:
        return rows * self.n_items + items

    def _begin(self, items: Tensor) -> Tensor:
        """First item of the block of each item: the last block is as wide as the others and begins inside the one
        before."""
        return ((items - 1) // self.width * self.width + 1).clamp(max=self.n_items - self.width)

    def _cells(self, rows: Tensor, items: Tensor) -> Tensor:
        return rows * self.block.shape[1] + items - self._begin(items)

    def ranking(self) -> Ranking:
        lists = self.best.lists() if self.best else self.rows.new_empty(len(self.block), 0)
        return Ranking(self.above + 1, self.candidates, lists)

    def look_at(self, number: int, begin: int, start: int) -> None:
        self.block[:, self.width :] = -_INF
        self.block[:, : begin - start] = -_INF  # seen before
        given = self.given.inside(number)
        self.block.view(-1)[self.cells[given]] = self.values[given]
        if self.best:
            self.best.look_at(self.block, start)
        else:  # lists are checked when they are made
            check_numbers(self.block.amax(1))
        if len(self.rows):
            self._count_ties(self.targets_in.order[self.targets_in.inside(number)], start)
            self._count_above(start + self.width)

    def _count_ties(self, those: Tensor, start: int) -> None:
        """Adds the items of the block before the targets in it that have the same score."""
        those = those[self.candidates[those]]
        same = self.block[self.rows[those]].eq_(self.own[those, None]).sum(1)
        tied = those[same > 1]
        if len(tied):
            before = torch.arange(self.block.shape[1], device=tied.device) < (self.items[tied] - start)[:, None]
            equal = self.block[self.rows[tied]] == self.own[tied, None]
            self.above[tied] += (equal & before).sum(1)

    def _count_above(self, end: int) -> None:
        """Adds the items of the block with a higher score than each target, and of a block before that of the target
        those with the same score. The block is gone then: comparing in place, as numbers, is many times faster than
        making bools."""
        just_below = torch.nextafter(self.own, self.own.new_tensor(-_INF))
        least = torch.where(self.items >= end, just_below, self.own)[:, None]
        for slot in self.slots[:0:-1]:
            self.above[slot] += self.block[self.rows[slot]].gt_(least[slot]).sum(1).long()
        first = self.slots[0]
        block = self.block if len(first) == len(self.block) else self.block[self.rows[first]]
        self.above[first] += block.gt_(least[first]).sum(1).long()


def _slots(rows: Tensor) -> Iterator[Tensor]:
    """Numbers of the first target of each row, then of the second of those that have one, ..."""
    counts = torch.bincount(rows)
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    for number in range(int(counts.max()) if len(rows) else 0):
        yield (place == number).nonzero().flatten()


class _InBlocks:
    """Pairs of a row and an item, in the order of the blocks that they are in."""

    def __init__(self, rows: Tensor, items: Tensor, n_items: int, width: int) -> None:
        block_of, self.order = ((items - 1) // width).sort()
        bounds = torch.arange(-(-(n_items - 1) // width) + 1, device=items.device)
        self.bounds = torch.searchsorted(block_of, bounds).tolist()

    def inside(self, number: int) -> slice:
        return slice(self.bounds[number], self.bounds[number + 1])
