"""Tables of vectors that new rows are added to while others read them."""

from torch import Tensor

# Rows that there is room for when a table is made, beside a share of its size.
_ROOM, _SHARE = 1024, 8


class GrowingTable:
    """(N, W) numbers, and room for more rows: adding one copies nothing most of the time.

    Who holds what ``rows`` gave reads the same numbers on, whatever is added or replaced.

    Args:
        first: (N, W); copied.

    Attributes:
        rows: (N, W) a view of them. One assignment changes it, once all is written: who reads meanwhile finds the rows
            before or after, and never some without numbers.
    """

    def __init__(self, first: Tensor) -> None:
        self._store, self.rows = first, first[:0]
        self.append(first)

    @classmethod
    def to_fill(cls, count: int, like: Tensor) -> "GrowingTable":
        """One whose (count, W) ``rows`` are still to be written; width, type and device are those of ``like``."""
        table = cls(like[:0])
        table._store = table._with_room(count)
        table.rows = table._store[:count]
        return table

    def __len__(self) -> int:
        return len(self.rows)

    def append(self, rows: Tensor) -> None:
        """Adds (M, W) rows at the end."""
        count = len(self.rows)
        wanted = count + len(rows)
        if count == 0 or wanted > len(self._store):
            self._store = self._with_room(wanted)
        self._store[count:wanted] = rows
        self.rows = self._store[:wanted]

    def replace(self, places: Tensor, rows: Tensor) -> None:
        """Writes (M, W) rows over those at (M,) places, in a copy."""
        store = self._with_room(len(self.rows))
        store[places] = rows
        self._store, self.rows = store, store[: len(self.rows)]

    def _with_room(self, wanted: int) -> Tensor:
        """A new store that begins with the rows there are."""
        store = self._store.new_empty(wanted + max(_ROOM, wanted // _SHARE), *self._store.shape[1:])
        store[: len(self.rows)] = self.rows
        return store
