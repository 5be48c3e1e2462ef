"""Columns that come block by block, as flat arrays: numbers in place of texts, and as few bytes as they need."""

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.data.files.digits import DigitIds
from recbole_hllm.data.files.tokens import PADDING, Tokens

# Bytes of texts that wait to be compared with all known ones: each time costs a pass over these.
_WAITING = 1 << 29
# Blocks that may be read before a column has taken them.
_AHEAD = 32


class Numbering:
    """Numbers the texts of a column 1, 2, ... in the order in which they first appear; 0 stands for a missing one."""

    def __init__(self) -> None:
        self._known = pa.array([], pa.large_string())
        self._digits: DigitIds | None = DigitIds()  # as long as all texts are of its form
        self._numbers: list[np.ndarray] = []
        self._waiting: list[tuple[np.ndarray | None, pa.Array]] = []
        self._in_order = True

    def add(self, texts: pa.Array) -> None:
        """Takes the next block.

        Args:
            texts: array of texts, missing ones null, or a dictionary array of texts.
        """
        numbers = None
        if isinstance(texts, pa.DictionaryArray):
            dictionary = texts.dictionary
            if not len(dictionary) or dictionary.null_count or 2 * len(dictionary) > len(texts):
                texts = texts.dictionary_decode()
            else:
                numbers = texts.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
                texts, self._in_order = dictionary, False  # somebody else made it, and perhaps not all of it is used
        if self._digits is not None:
            if (by_column := self._digits.add(texts)) is not None:
                self._numbers.append(_through(by_column, numbers))
                return
            self._known, self._digits = self._digits.texts(), None
        if len(texts):
            self._waiting.append((numbers, texts.cast(pa.large_string())))
        if sum(array.nbytes for pair in self._waiting for array in pair if array is not None) > _WAITING:
            self._settle()

    def _settle(self) -> None:
        """Texts of blocks become numbers of the column."""
        if not self._waiting:
            return
        known = [self._known] if len(self._known) else []
        encoded = pa.chunked_array([*known, *(texts for _, texts in self._waiting)]).dictionary_encode()
        self._known = encoded.chunk(encoded.num_chunks - 1).dictionary
        for (numbers, _), chunk in zip(self._waiting, encoded.chunks[len(known) :], strict=True):
            by_column = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) + np.int32(1)
            self._numbers.append(_through(by_column, numbers))
        self._waiting = []

    def finish(self) -> tuple[np.ndarray, Tokens]:
        """(T,) int32 numbers of all blocks, and their texts."""
        if self._digits is not None:
            self._known = self._digits.texts()
        self._settle()
        numbers, self._numbers = np.concatenate([np.empty(0, np.int32), *self._numbers]), []
        empty = pc.index(self._known, pa.scalar("", pa.large_string())).as_py()
        if empty >= 0:
            numbers[numbers == empty + 1], self._in_order = 0, False
        tokens = Tokens(pa.array([PADDING], pa.large_string())).extended(self._known)
        return (numbers, tokens) if self._in_order else renumbered(numbers, tokens)


def _through(numbers: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    """Numbers of a dictionary's texts as those of its rows; a missing text, at -1, has 0."""
    return numbers if places is None else np.append(numbers, np.int32(0))[places]


class Numbers:
    """A column of numbers.

    Args:
        exact: keep whole numbers whole, as times are; else all are float64.
    """

    def __init__(self, exact: bool) -> None:
        self.exact, self._blocks = exact, []  # type: tuple[bool, list[np.ndarray]]

    def add(self, values: pa.Array) -> None:
        """Takes the next block; null is not a number."""
        if self.exact:
            self._blocks.append(narrow(values.to_numpy(zero_copy_only=False)))
        else:
            self._blocks.append(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))

    def finish(self) -> np.ndarray:
        """(T,) float64; int32 or int64 where they are to be exact and all are whole."""
        kind = np.result_type(*self._blocks) if self._blocks else np.dtype(np.float64)
        values, self._blocks = np.concatenate([np.empty(0, kind), *self._blocks]), []
        return narrow(values) if self.exact else values


def gathered(
    blocks: Iterable[Mapping[str, pa.Array]], columns: Mapping[str, "Numbering | Numbers"]
) -> tuple[dict[str, np.ndarray], dict[str, Tokens]]:
    """Whole columns out of blocks of rows. Each column has a thread of its own, which works while further blocks are
    read.

    Args:
        blocks: of each block name -> array, as ``add`` of the column takes it.
        columns: what they are added to.

    Returns:
        name -> (T,) array, and name -> texts of the numbered columns.
    """
    with ExitStack() as opened:
        threads = {name: opened.enter_context(ThreadPoolExecutor(1)) for name in columns}
        waiting: deque[list[Future[None]]] = deque()
        for block in blocks:
            waiting.append([threads[name].submit(column.add, block[name]) for name, column in columns.items()])
            while len(waiting) > _AHEAD:
                _done(waiting.popleft())
        for adding in waiting:
            _done(adding)
        whole: dict[str, Future[Any]] = {name: threads[name].submit(column.finish) for name, column in columns.items()}
    arrays: dict[str, np.ndarray] = {}
    tokens: dict[str, Tokens] = {}
    for name, ready in whole.items():
        result: Any = ready.result()
        if isinstance(result, tuple):
            arrays[name], tokens[name] = result
        else:
            arrays[name] = result
    return arrays, tokens


def _done(adding: list[Future[None]]) -> None:
    for one in adding:
        one.result()


def narrow(values: np.ndarray) -> np.ndarray:
    """The same numbers as int32 or int64 where all are whole and fit, else as float64."""
    if values.dtype.kind not in "iu":
        values = values.astype(np.float64, copy=False)
        # Larger ones are whole, and stand for several numbers.
        if len(values) == 0 or not (np.abs(values) < 2.0**53).all() or (values != np.rint(values)).any():
            return values
        values = values.astype(np.int64)
    if len(values) and values.max() > np.iinfo(np.int64).max:
        return values.astype(np.float64)
    fits = len(values) == 0 or (values.min() >= -(2**31) and values.max() < 2**31)
    return values.astype(np.int32 if fits else np.int64, copy=False)


def renumbered(numbers: np.ndarray, tokens: Tokens) -> tuple[np.ndarray, Tokens]:
    """Numbers by the order in which they first appear, without those that never do, as RecBole numbers.

    Args:
        numbers: (T,) int32, 0 for missing; changed in place.
        tokens: their texts.
    """
    first = np.full(len(tokens), len(numbers), np.int64)
    step = 1 << 22
    for begin in reversed(range(0, len(numbers), step)):
        block = numbers[begin : begin + step]
        first[block[::-1]] = np.arange(begin, begin + len(block))[::-1]  # of several, the last is kept
    first[0] = -1
    used = np.flatnonzero(first < len(numbers))
    order = used[np.argsort(first[used], kind="stable")]
    if len(order) == len(tokens) and (order == np.arange(len(tokens))).all():
        return numbers, tokens
    new = np.zeros(len(tokens), np.int32)
    new[order] = np.arange(len(order))
    for begin in range(0, len(numbers), step):
        numbers[begin : begin + step] = new[numbers[begin : begin + step]]
    return numbers, Tokens(tokens.texts.take(pa.array(order)))


def number_texts(texts: Any) -> tuple[np.ndarray, Tokens]:
    """(T,) int32 numbers of texts in order of first appearance, 0 for a missing one, and the texts.

    Args:
        texts: sequence of str, None or NaN.
    """
    numbering = Numbering()
    numbering.add(pa.array(texts, pa.large_string(), from_pandas=True))
    return numbering.finish()
