"""Tables of vectors that new rows are added to while others read them."""

from torch import Tensor

# Rows that there is room for when a table is made, beside a share of its size.
_ROOM, _SHARE = 1024, 8


class GrowingTable:
    """(N, W) numbers, and room for more rows: adding one copies nothing most of the time.

    Who holds what ``rows`` gave reads the same numbers on, whatever is added.

    Args:
        first: (N, W); copied.
    """

    def __init__(self, first: Tensor) -> None:
        self._count = 0
        self._store = first.new_empty(len(first) + max(_ROOM, len(first) // _SHARE), *first.shape[1:])
        self.append(first)

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Tensor:
        """(N, W) a view."""
        return self._store[: self._count]

    def append(self, rows: Tensor) -> None:
        """Adds (M, W) rows at the end."""
        wanted = self._count + len(rows)
        if wanted > len(self._store):
            store = self._store.new_empty(wanted + max(_ROOM, wanted // _SHARE), *self._store.shape[1:])
            store[: self._count] = self.rows
            self._store = store
        self._store[self._count : wanted] = rows
        self._count = wanted

    def replace(self, places: Tensor, rows: Tensor) -> None:
        """Writes (M, W) rows over those at (M,) places; into a copy, so that who reads meanwhile reads whole rows."""
        store = self._store.clone()
        store[places] = rows
        self._store = store
