"""Items drawn as negatives, with RecBole's distributions and without a Python object for a user or an interaction."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_hllm.data.rows.positions import Positions, blocks_of, narrow


class OwnItems:
    """Which items each user has.

    Args:
        offsets: (U + 1,) user u's are ``items[offsets[u]:offsets[u + 1]]``.
        items: (P,) items of all users, rising inside each user; repetitions are fine.
    """

    def __init__(self, offsets: np.ndarray, items: np.ndarray) -> None:
        self.offsets, self.items = offsets, items

    @classmethod
    def at(cls, positions: Positions, sequences: Any, n_users: int, n_items: int) -> "OwnItems":
        """The items of all sequences of each user at some flat positions.

        Args:
            positions: of the sequences.
            sequences: of whom there may be several of one user.
        """
        users = sequences.users
        order = np.argsort(users, kind="stable")
        counts = positions.counts[order]
        before = np.concatenate([[0], np.cumsum(counts)])
        items = np.empty(len(positions), dtype=np.int32 if n_items < 2**31 else np.int64)
        # A user's sequences are neighbours here and may be cut by a block: what is sorted are whole users.
        last = np.append(np.flatnonzero(np.diff(users[order])), len(order) - 1) + 1
        ends = np.concatenate([[0], last])
        for begin, end in blocks_of(before[ends]):
            block = order[ends[begin] : ends[end]]
            keys = np.repeat(users[block].astype(np.int64), positions.counts_of(block)) * n_items
            keys += sequences.items[positions.of_runs(block)]
            keys.sort()
            items[before[ends[begin]] : before[ends[end]]] = keys % n_items
        per_user = np.zeros(n_users, dtype=np.int64)
        per_user[users[order[last - 1]]] = np.diff(before[ends])
        return cls(narrow(np.concatenate([[0], np.cumsum(per_user)])), items)

    def has(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(B,) whether each of these users has the item beside it."""
        below = self.offsets[users].astype(np.int64) - 1  # the last place known to have a smaller item
        last = self.offsets[users + 1].astype(np.int64) - 1
        for bit in reversed(range(int((last - below).max(initial=0)).bit_length())):
            place = np.minimum(below + (1 << bit), last)
            below = np.where(self.items.take(place, mode="clip") < items, place, below)
        return (below < last) & (self.items.take(below + 1, mode="clip") == items)


class ItemSampler:
    """Draws items from 1 on, with RecBole's samplers' names.

    Given the same random numbers, uniform items are those that RecBole's ``Sampler`` and ``RepeatableSampler`` draw.

    Args:
        n_items: size of the catalogue, padding included.
        seed: of the first items.
        weights: (n_items,) an item's chance is proportional to its weight; None: all items alike.
        own: what a user has is no negative of that user; None: the item of a row is no negative of this row.

    Attributes:
        random: the generator that is drawn from.
    """

    def __init__(
        self, n_items: int, seed: int, weights: np.ndarray | None = None, own: OwnItems | None = None
    ) -> None:
        self.n_items, self.own = n_items, own
        self._cumulated = None if weights is None else np.cumsum(weights) / np.sum(weights)
        self.seed((seed,))

    def seed(self, numbers: Sequence[int]) -> None:
        """Draws go on as these numbers say, whatever was drawn before."""
        self.random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(tuple(numbers))))

    def sampling(self, number: int) -> np.ndarray:
        """(number,) items, int64."""
        if self._cumulated is None:
            return self.random.integers(1, self.n_items, number)
        places = np.searchsorted(self._cumulated, self.random.random(number), side="right")
        return np.minimum(places, self.n_items - 1)

    def sample_by_user_ids(self, user_ids: np.ndarray, item_ids: np.ndarray, num: int) -> Tensor:
        """Negatives of rows.

        Args:
            user_ids, item_ids: (B,) of each row.
            num: negatives of each.

        Returns:
            (num * B,) items: the first of each row, then the second of each, ...
        """
        users, items = np.tile(user_ids, num), np.tile(item_ids, num)
        drawn = self.sampling(len(users))
        wrong = np.flatnonzero(self._excluded(users, items, drawn))
        while len(wrong):
            drawn[wrong] = self.sampling(len(wrong))
            wrong = wrong[self._excluded(users[wrong], items[wrong], drawn[wrong])]
        return torch.from_numpy(drawn)

    def _excluded(self, users: np.ndarray, items: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        return drawn == items if self.own is None else self.own.has(users, drawn)
