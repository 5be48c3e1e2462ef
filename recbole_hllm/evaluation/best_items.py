"""The best items of some rows, from scores that come in blocks; of equal ones the one with the smaller id is first."""

import numpy as np
import torch
from torch import Tensor

from recbole_hllm.errors import ModelError

_FEW = 32  # times the length of a list: of fewer items the first ones are simply sorted out
_INF = float("inf")


def _by_score(scores: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the order of the scores of each row, best first; equal ones stay in theirs."""
    scores, places = scores.sort(dim=1, descending=True, stable=True)
    return scores, items.gather(1, places)


def check_numbers(scores: Tensor) -> None:
    """Raises ModelError where a score is not a number."""
    if scores.isnan().any():
        raise ModelError("scores are not numbers; training has failed: try a smaller learning_rate")


def _above(values: Tensor, least: Tensor) -> Tensor:
    """Flat numbers of the (R, C) values that are above (R, 1) others, ascending; NumPy is several times as fast."""
    if values.device.type != "cpu":
        return (values > least).flatten().nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(values.numpy() > least.numpy()))


class BestItems:
    """The best items of each row so far: at least k of them, where there are so many.

    Args:
        block: (rows, items) memory of the blocks that will be looked at.
        k: length of the lists.
        tile: items of which only the best one is compared with the list so far.
    """

    def __init__(self, block: Tensor, k: int, tile: int) -> None:
        n_rows, width = block.shape
        self.k, self.tile = k, tile
        self.scores = block.new_full((n_rows, 2 * k + width), -_INF)
        self.items = torch.zeros_like(self.scores, dtype=torch.long)
        self.filled = torch.zeros(n_rows, dtype=torch.long, device=block.device)
        self.worst = block.new_full((n_rows, 1), -_INF)
        self.most, self.begun = 0, False

    def look_at(self, block: Tensor, start: int) -> None:
        """Takes the items of a block that are better than the k-th one so far: an equal one has the larger id."""
        if not self.begun and block.shape[1] < _FEW * self.k:
            self._begin_with(block, start)
            return
        tiles = block.view(len(block), self.tile, -1)
        maxima = tiles.amax(1)
        check_numbers(maxima.amax(1))
        if not self.begun:  # at least k items are as good as the k-th tile
            least = maxima.topk(self.k, sorted=False).values.amin(1, keepdim=True)
            self.worst = torch.nextafter(least, least.new_tensor(-_INF))
        better, n_tiles = _above(maxima, self.worst), maxima.shape[1]
        rows, tile = better // n_tiles, better % n_tiles
        found = tiles[rows, :, tile]
        better = _above(found, self.worst[rows])
        which, within = better // self.tile, better % self.tile
        self._add(rows[which], start + within * n_tiles + tile[which], found.view(-1)[better])
        if not self.begun or self.most > 2 * self.k:
            self._cut()
        self.begun = True

    def _begin_with(self, block: Tensor, start: int) -> None:
        """Takes the first k of a block, of which they are a large part."""
        scores, places = block.topk(min(self.k + 1, block.shape[1]), dim=1)
        check_numbers(scores[:, 0])
        if scores.shape[1] > self.k:  # of those that tie with the k-th, torch takes any
            tied = ((scores[:, self.k] == scores[:, self.k - 1]) & (scores[:, self.k] > -_INF)).nonzero().flatten()
            some, theirs = block[tied].sort(dim=1, descending=True, stable=True)
            scores[tied], places[tied] = some[:, : scores.shape[1]], theirs[:, : scores.shape[1]]
            scores, places = scores[:, : self.k], places[:, : self.k]
            self.worst = scores[:, -1:].clone()
        self.begun, self.most = True, scores.shape[1]
        self.scores[:, : self.most], self.items[:, : self.most] = scores, places + start
        self.filled = (scores > -_INF).sum(1)

    def _add(self, rows: Tensor, items: Tensor, scores: Tensor) -> None:
        """Appends items to rows, which ascend."""
        counts = torch.bincount(rows, minlength=len(self.filled))
        places = torch.arange(len(rows), device=rows.device) + (self.filled + counts - counts.cumsum(0))[rows]
        cells = rows * self.scores.shape[1] + places
        self.scores.view(-1)[cells], self.items.view(-1)[cells] = scores, items
        self.filled = self.filled + counts
        self.most = int(self.filled.max())

    def _cut(self) -> None:
        """Leaves out what is not among the first k of a row."""
        if self.most <= self.k:
            return
        scores = self.scores[:, : self.most].clone()
        self.worst = scores.topk(self.k, sorted=False).values.amin(1, keepdim=True)
        rows, places = ((scores >= self.worst) & (scores > -_INF)).nonzero(as_tuple=True)
        self._replace(rows, self.items[rows, places], scores[rows, places])
        if self.most > self.k:  # who ties with the k-th: their ids decide
            scores, items = self._in_order()
            rows, places = (scores > -_INF).nonzero(as_tuple=True)
            self._replace(rows, items[rows, places], scores[rows, places])

    def _replace(self, rows: Tensor, items: Tensor, scores: Tensor) -> None:
        self.scores[:, : self.most] = -_INF
        self.filled.zero_()
        self._add(rows, items, scores)

    def _in_order(self) -> tuple[Tensor, Tensor]:
        """(rows, k) scores and ids, best first; rows with fewer than k items are filled up with -inf."""
        kept = slice(max(self.most, self.k))
        scores, items = _by_score(self.scores[:, kept], self.items[:, kept])
        equal = ((scores[:, 1:] == scores[:, :-1]) & (scores[:, 1:] > -_INF)).any(1).nonzero().flatten()
        if len(equal):
            items[equal], by_id = items[equal].sort(1)
            scores[equal], items[equal] = _by_score(scores[equal].gather(1, by_id), items[equal])
        return scores[:, : self.k], items[:, : self.k]

    def lists(self) -> Tensor:
        """(rows, k) ids, best first; rows with fewer than k items are filled up with 0."""
        self._cut()
        scores, items = self._in_order()
        return torch.where(scores > -_INF, items, 0)
