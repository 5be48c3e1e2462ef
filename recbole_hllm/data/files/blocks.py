"""Columns that come block by block, as flat arrays: numbers in place of texts, and as few bytes as they need."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.data.files.tokens import PADDING, Tokens

# Texts of blocks wait to be compared with all known ones: each time costs a pass over these.
_WAITING = 1 << 20


class Numbering:
    """Numbers the texts of a column 1, 2, ... in the order in which they first appear; 0 stands for a missing one."""

    def __init__(self) -> None:
        self._known = pa.array([], pa.large_string())
        self._numbers: list[np.ndarray] = []
        self._waiting: list[tuple[np.ndarray, pa.Array]] = []
        self._in_order = True

    def add(self, texts: pa.Array) -> None:
        """Takes the next block.

        Args:
            texts: array of texts, missing ones null, or a dictionary array of texts.
        """
        if not isinstance(texts, pa.DictionaryArray) or texts.dictionary.null_count:
            dense = texts.dictionary_decode() if isinstance(texts, pa.DictionaryArray) else texts
            texts = dense.dictionary_encode()
        else:
            self._in_order = False  # somebody else made the dictionary, and perhaps not all of it is used
        numbers = texts.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        dictionary = texts.dictionary.cast(pa.large_string())
        empty = pc.index(dictionary, pa.scalar("", pa.large_string())).as_py()
        if empty >= 0:
            numbers, self._in_order = np.where(numbers == empty, np.int32(-1), numbers), False
        self._waiting.append((numbers, dictionary))
        if sum(len(known) for _, known in self._waiting) > max(_WAITING, len(self._known)):
            self._settle()

    def _settle(self) -> None:
        """Numbers by the block become numbers by the column."""
        dictionaries = [self._known, *(dictionary for _, dictionary in self._waiting)]
        encoded = pa.concat_arrays(dictionaries).dictionary_encode()
        self._known = encoded.dictionary
        places = np.split(encoded.indices.to_numpy() + np.int32(1), np.cumsum([len(one) for one in dictionaries]))
        for (numbers, _), by_column in zip(self._waiting, places[1:-1], strict=True):
            self._numbers.append(np.append(by_column, np.int32(0))[numbers])  # -1, a missing text, becomes the last
        self._waiting = []

    def finish(self) -> tuple[np.ndarray, Tokens]:
        """(T,) int32 numbers of all blocks, and their texts."""
        self._settle()
        numbers, self._numbers = np.concatenate([np.empty(0, np.int32), *self._numbers]), []
        tokens = Tokens(pa.array([PADDING], pa.large_string())).extended(self._known)
        return (numbers, tokens) if self._in_order else renumbered(numbers, tokens)


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
