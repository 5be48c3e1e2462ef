"""Texts of ids, users' and items' names, as bytes: a hundred million characters are no Python objects."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PADDING = "[PAD]"
# A text is looked for from end to end of all texts so often, before a dict of them is made.
_SCANS = 16


class Tokens:
    """The texts of ids 0, 1, 2, ..., of which 0 is padding: what NumPy's array of them is for reading.

    Args:
        texts: (n,) their texts, the first that of padding; may lie in a memory-mapped file.
    """

    def __init__(self, texts: pa.LargeStringArray) -> None:
        self.texts = texts

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Tokens":
        """From Python's texts, that of padding first."""
        return cls(pa.array(texts, pa.large_string()))

    @classmethod
    def from_buffers(cls, text: np.ndarray, offsets: np.ndarray) -> "Tokens":
        """From (bytes,) uint8 UTF-8 of all texts and (n + 1,) int64 where each begins; neither is copied."""
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
        return cls(pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers))

    def buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """The arrays that ``from_buffers`` takes."""
        whole = pa.concat_arrays([self.texts]) if self.texts.offset else self.texts
        _, offsets, text = whole.buffers()
        begins = np.frombuffer(offsets, np.int64)[: len(whole) + 1]
        return np.frombuffer(text or b"", np.uint8)[: begins[-1]], begins

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), 1 << 16):
            yield from self.texts[begin : begin + (1 << 16)].to_pylist()

    def __getitem__(self, ids: Any) -> Any:
        """The text of a number; of a slice or an array of ids an array of texts.

        Raises:
            IndexError: there is no such id.
        """
        if isinstance(ids, slice):
            return np.array(self.texts[ids].to_pylist(), dtype=str)
        ids = np.asarray(ids)
        if ids.dtype == bool:
            ids = np.flatnonzero(ids)
        if ids.size and not (-len(self) <= ids.min() and ids.max() < len(self)):
            raise IndexError(f"ids {ids.min()} to {ids.max()}, and there are {len(self)}")
        flat = np.where(ids < 0, ids + len(self), ids).astype(np.int64).ravel()
        texts = self.texts.take(pa.array(flat)).to_pylist()
        return np.array(texts, dtype=str).reshape(ids.shape) if ids.ndim else texts[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.texts.to_pylist(), dtype=dtype or str)

    def tolist(self) -> list[str]:
        """All texts."""
        return self.texts.to_pylist()

    def ids_of(self, texts: pa.Array) -> np.ndarray:
        """(n,) int32 id of each text; 0 for one that is not there, and for a missing one."""
        found = pc.index_in(texts.cast(pa.large_string()), value_set=self.texts[1:])
        return found.fill_null(-1).to_numpy() + np.int32(1)

    def extended(self, texts: pa.Array) -> "Tokens":
        """These and others, which are not among them yet."""
        return Tokens(pa.concat_arrays([self.texts, texts.cast(pa.large_string())])) if len(texts) else self


class TokenIds(Mapping[str, int]):
    """Text -> id. Some are found by looking through all; a dict is made for who asks for more."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens, self._known, self._scans = tokens, {}, 0  # type: tuple[Tokens, dict[str, int], int]

    def __getitem__(self, token: str) -> int:
        if not self._known and self._scans < _SCANS:
            self._scans += 1
            return self._look_through(token)
        if not self._known:
            self._known = {text: number for number, text in enumerate(self.tokens)}
        return self._known[token]

    def _look_through(self, token: str) -> int:
        place = pc.index(self.tokens.texts[1:], pa.scalar(str(token), pa.large_string())).as_py() + 1
        if place == 0 and token != PADDING:
            raise KeyError(token)
        return int(place)

    def __len__(self) -> int:
        return len(self.tokens)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tokens)
