"""What recommends: vectors of users and items whose product is the score, a table of pairs, and sums of these.

A trained model gives one of these (``Servable.served``), an export holds it, and a Recommender asks it. Items have
numbers from 1; row 0 of each table is padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.user_models.base import Histories, UserModel
from recbole_hllm.serving.growing import GrowingTable
from recbole_hllm.serving.rows import FURTHER, Rows

# Items of a whole history, however long it is.
UNBOUNDED = 2**31


class Beside(NamedTuple):
    """What scores have beside a product of vectors: (M,) values for item ``items[m]`` in row ``rows[m]``."""

    rows: Tensor
    items: Tensor
    values: Tensor

    def add_to(self, scores: Tensor) -> None:
        """Adds them to (B, N) scores, in place."""
        scores.index_put_((self.rows, self.items), self.values.to(scores.dtype), accumulate=True)


class ServedVectors:
    """A model whose scores are products of vectors of users and of items.

    Args:
        user_model: reads histories; with the weights of the trained model.
        scored: (N, E) vectors of items that users' are multiplied with, as the model has them.
        read: (N, C) vectors of items that the user model reads; None: those that are scored.
        cosine: both sides are brought to length 1.
        scale: what scores are multiplied by in the softmax that the model was trained with.
        length: most items of a history that are read.
        precision: of the products inside the user model; None: float32.
        padded: whether the tables begin with a row of padding; False: with item 1.
    """

    def __init__(
        self,
        user_model: UserModel,
        scored: Tensor,
        read: Tensor | None = None,
        *,
        cosine: bool,
        scale: float = 1.0,
        length: int,
        precision: torch.dtype | None = None,
        padded: bool = True,
    ) -> None:
        self.user_model = user_model.eval()
        self.cosine, self.scale, self.length, self.precision = cosine, scale, length, precision
        self.reads_scored = read is None
        self._read = _table(scored if read is None else read, padded)
        self._items = self._read
        if cosine or read is not None:
            self._items = _table(scored, padded, cosine)

    @property
    def items(self) -> Tensor:
        """(N, E) vectors of items as they are multiplied with users'."""
        return self._items.rows

    @property
    def scored(self) -> Tensor:
        """(N, E) the same, as the model has them where that is kept: of cosines directions count alone."""
        return self.read if self.reads_scored else self.items

    @property
    def read(self) -> Tensor:
        """(N, C) vectors of items as histories are read."""
        return self._read.rows

    # Scores are products of vectors alone.
    scores_all = False

    @property
    def longest(self) -> int:
        """Most items of a history that scores depend on."""
        return self.length

    @property
    def reads_times(self) -> bool:
        """Whether rows need times."""
        return self.user_model.reads_times

    @torch.no_grad()
    def users(self, rows: Rows, further: Tensor | None = None) -> Tensor:
        """(B, E) float32 vectors of users, whose product with ``items`` is the score.

        Args:
            rows: histories.
            further: (M, C) vectors of items that only these rows have, whose numbers begin with ``FURTHER``.

        Raises:
            ModelError: the model reads times and there are none.
        """
        rows = rows.cut(self.length)
        if self.reads_times and (rows.times is None or rows.at is None):
            raise ModelError("this model reads times: give the time of each item of the history, and of the request")
        vectors, known = self._vectors(rows.items, further)
        histories = Histories(vectors, rows.items * known, rows.lengths, rows.times, rows.at)
        with autocast(vectors.device, self.precision):
            users = self.user_model(histories)
        return self._finished(users.float())

    def _vectors(self, items: Tensor, further: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, S, C) vectors of items, and which of these the table has."""
        table = self.read
        if further is None:
            return table[items], torch.ones_like(items)
        known = items < FURTHER
        vectors = table[items * known]
        vectors[~known] = further[items[~known] - FURTHER]
        return vectors, known.long()

    def beside(self, rows: Rows) -> Beside | None:
        """Nothing."""
        return None

    def similarities(self, items: Tensor, item: int) -> Tensor:
        """(M,) cosines of some items' vectors, as they are scored, and another one's."""
        return F.cosine_similarity(self.items[items], self.items[item][None], dim=-1)

    @torch.no_grad()
    def add(self, content: Tensor) -> None:
        """Adds items by (M, C) vectors as histories are to hold them."""
        scored = self._finished(self.user_model.of_items(content).float())
        self._read.append(content)
        if self._items is not self._read:
            self._items.append(scored)

    @torch.no_grad()
    def replace(self, items: Tensor, content: Tensor) -> None:
        """Gives (M,) items other vectors."""
        scored = self._finished(self.user_model.of_items(content).float())
        self._read.replace(items, content)
        if self._items is not self._read:
            self._items.replace(items, scored)

    def _finished(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.cosine else vectors


class ServedPairs:
    """A model that counts which item follows which: what any item has, and what more it has after another one.

    Args:
        popular: (N,) what any item has.
        pairs: (P, 2) an item and the one after it, sorted.
        values: (P,) what the second has more after the first.
    """

    reads_times = False
    scale = 1.0
    longest = 1

    def __init__(self, popular: Tensor, pairs: Tensor, values: Tensor) -> None:
        self.popular, self.pairs, self.values = popular.detach().float(), pairs, values.detach().float()
        self._begins = pairs[:, 0].contiguous()

    @property
    def items(self) -> Tensor:
        """(N, 1)."""
        return self.popular[:, None]

    def users(self, rows: Rows, further: Tensor | None = None) -> Tensor:
        """(B, 1) ones."""
        return self.popular.new_ones(len(rows.lengths), 1)

    def beside(self, rows: Rows) -> Beside:
        """What the items after the last one of each row have more."""
        last = rows.last
        begin = torch.searchsorted(self._begins, last)
        found = torch.searchsorted(self._begins, last, right=True) - begin
        owner = torch.arange(len(last), device=last.device).repeat_interleave(found)
        places = torch.arange(len(owner), device=last.device) + (begin - found.cumsum(0) + found)[owner]
        return Beside(owner, self.pairs[places, 1], self.values[places])

    def scores(self, rows: Rows) -> Tensor:
        """(B, N) float32."""
        scores = self.popular.repeat(len(rows.lengths), 1)
        self.beside(rows).add_to(scores)
        return scores


class ServedTable:
    """A model whose score of an item is the sum of what each item of the whole history gives it, such as EASE.

    Args:
        table: (N, N) what the item of a row gives that of a column; 0 is padding.
    """

    reads_times = False
    scale = 1.0
    longest = UNBOUNDED

    def __init__(self, table: Tensor) -> None:
        self.table = table.detach().float()

    @property
    def items(self) -> Tensor:
        """(N, 1) zeros: no score is a product."""
        return self.table.new_zeros(len(self.table), 1)

    def users(self, rows: Rows, further: Tensor | None = None) -> Tensor:
        """(B, 1) zeros."""
        return self.table.new_zeros(len(rows.lengths), 1)

    def scores(self, rows: Rows) -> Tensor:
        """(B, N) float32; an item that a history has twice counts twice."""
        histories = zip(rows.items, rows.lengths.tolist(), strict=True)
        return torch.stack([self.table[items[:length]].sum(0) for items, length in histories])

    def similarities(self, items: Tensor, item: int) -> Tensor:
        """(M,) cosines of what some items, and another one, give to all."""
        return F.cosine_similarity(self.table[items], self.table[item][None], dim=-1)


Part = ServedVectors | ServedPairs | ServedTable


class ServedBlend:
    """A weighted sum: vectors of the parts side by side, those of users multiplied by the weights.

    Args:
        parts: of the sum, all of the same items.
        mix: (G, P) weight of each part in each group of lengths of histories.
        bounds: the first length of each group but the first one.
        length: histories are counted up to so many items.
    """

    scale = 1.0

    def __init__(self, parts: Sequence[Part], mix: Tensor, bounds: Sequence[int], length: int) -> None:
        self.parts, self.mix, self.bounds, self.length = list(parts), mix.detach().float(), list(bounds), length
        self.items = self._side_by_side()

    @property
    def longest(self) -> int:
        """Most items of a history that scores depend on."""
        return max(self.length, *(part.longest for part in self.parts))

    @property
    def scores_all(self) -> bool:
        """Whether a part scores all items, without vectors: no index finds the best, and ``scores`` alone has them."""
        return any(isinstance(part, ServedTable) for part in self.parts)

    @property
    def reads_times(self) -> bool:
        """Whether rows need times."""
        return any(part.reads_times for part in self.parts)

    def users(self, rows: Rows, further: Tensor | None = None) -> Tensor:
        """(B, E) vectors of users, whose product with ``items`` is the score but for what is ``beside``.

        Raises:
            ModelError: there are ``further`` vectors, which ids have none of.
        """
        self._refuse(further)
        weights = self._weights(rows)
        users = [weights[:, place, None] * part.scale * part.users(rows) for place, part in enumerate(self.parts)]
        return torch.cat(users, dim=1)

    def beside(self, rows: Rows) -> Beside | None:
        """What parts have beside products, times their weights; None where there is none, or ``scores`` has it."""
        weights, found = self._weights(rows), []
        for place, part in enumerate(self.parts):
            if not isinstance(part, ServedTable) and (more := part.beside(rows)) is not None:
                found.append(Beside(more.rows, more.items, more.values * weights[more.rows, place]))
        return Beside(*map(torch.cat, zip(*found, strict=True))) if found else None

    def scores(self, rows: Rows, further: Tensor | None = None) -> Tensor:
        """(B, N) scores of all items; 0 is padding. Errors are those of ``users``."""
        scores, weights = self.users(rows, further) @ self.items.T, self._weights(rows)
        if (beside := self.beside(rows)) is not None:
            beside.add_to(scores)
        for place, part in enumerate(self.parts):
            if isinstance(part, ServedTable):
                scores += weights[:, place, None] * part.scores(rows)
        return scores

    def similarities(self, items: Tensor, item: int) -> Tensor:
        """(M,) mean cosine of some items and another one in all parts but pairs, by their weights."""
        found, total = self.mix.new_zeros(len(items)), 0.0
        for part, share in zip(self.parts, self.mix.mean(0).tolist(), strict=True):
            if not isinstance(part, ServedPairs):
                found, total = found + share * part.similarities(items, item), total + share
        return found / (total or 1.0)

    def _side_by_side(self) -> Tensor:
        return torch.cat([part.items for part in self.parts], dim=1)

    def _refuse(self, further: Tensor | None) -> None:
        if further is not None:
            raise ModelError("a blend has parts that know items by id: texts have no vectors in these")

    def _weights(self, rows: Rows) -> Tensor:
        """(B, P)."""
        lengths = rows.lengths.clamp(max=self.length)
        return self.mix[torch.bucketize(lengths, lengths.new_tensor(self.bounds), right=True)]


@torch.no_grad()
def _table(vectors: Tensor, padded: bool, cosine: bool = False) -> GrowingTable:
    """Of float32, and with ``cosine`` of length 1, in one copy; RecBole leaves random numbers in the row of padding,
    whose vector is 0 here."""
    vectors = vectors[int(padded) :].float()
    table = GrowingTable.to_fill(len(vectors) + 1, vectors)
    table.rows[0] = 0
    if cosine:
        F.normalize(vectors, dim=-1, out=table.rows[1:])
    else:
        table.rows[1:] = vectors
    return table


Served = ServedVectors | ServedBlend
