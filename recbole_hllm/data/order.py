"""Orders of rows in a pass over them: as they stand, shuffled, or shuffled by group."""

from typing import Any

import numpy as np
import torch

# Rows up to which a shuffled order is held: 128 MB. Above, a place is computed when asked for.
MOST_HELD = 1 << 24
_ROUNDS = 6


class Order:
    """Rows as they stand.

    Args:
        size: how many there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def begin(self, seed: int) -> Any:
        """The order of a new pass: a slice of it are row numbers, int64.

        Args:
            seed: of this pass.
        """
        return self

    def __getitem__(self, places: slice) -> np.ndarray:
        return np.arange(*places.indices(self.size))


class Shuffled(Order):
    """Another order in each pass.

    Args:
        size: how many rows there are.
        generator: of the order of at most ``MOST_HELD`` rows.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__(size)
        self.generator = generator

    def begin(self, seed: int) -> Any:
        """The order of a new pass."""
        if self.size > MOST_HELD:
            return Permutation(self.size, seed)
        order = torch.randperm(self.size, generator=self.generator).numpy()
        # torch's own sampler draws another at the end of a pass and drops it: orders of later passes stay those it has.
        torch.randperm(self.size, generator=self.generator)
        return order


class Grouped(Order):
    """Rows in the random order of the groups they belong to, and in their own order inside a group.

    Args:
        groups: (R,) number of each row's group, from 0 on.
        generator: of the order.
    """

    def __init__(self, groups: np.ndarray, generator: torch.Generator) -> None:
        super().__init__(len(groups))
        self.groups, self.generator = groups, generator

    def begin(self, seed: int) -> Any:
        """The order of a new pass."""
        place = torch.randperm(int(self.groups.max()) + 1, generator=self.generator).numpy()
        return np.argsort(place[self.groups], kind="stable")


class Permutation:
    """A random order of the numbers below ``size`` that nothing holds: each place is computed when asked for.

    The bits of a place are cut into two halves, and each is changed in turn by a function of the other (a Feistel
    network), which is one to one on the numbers of so many bits; what comes out too large goes in again until it does
    not.

    Args:
        size: how many numbers, at least 1.
        seed: of the order.
    """

    def __init__(self, size: int, seed: int) -> None:
        bits = max((size - 1).bit_length(), 2)
        self.size, self._low_bits = size, np.uint64(bits - bits // 2)
        self._masks = tuple(np.uint64((1 << half) - 1) for half in (bits // 2, bits - bits // 2))
        self._keys = np.random.SeedSequence(seed).generate_state(_ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, places: slice) -> np.ndarray:
        numbers = self._changed(np.arange(*places.indices(self.size)).astype(np.uint64))
        outside = np.flatnonzero(numbers >= self.size)
        while len(outside):
            numbers[outside] = self._changed(numbers[outside])
            outside = outside[numbers[outside] >= self.size]
        return numbers.astype(np.int64)

    def _changed(self, numbers: np.ndarray) -> np.ndarray:
        high, low = numbers >> self._low_bits, numbers & self._masks[1]
        for first, second in self._keys.reshape(-1, 2):
            high = high ^ (_mixed(low ^ first) & self._masks[0])
            low = low ^ (_mixed(high ^ second) & self._masks[1])
        return (high << self._low_bits) | low


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits, each bit of which depends on all bits of what came in: the last steps of splitmix64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
