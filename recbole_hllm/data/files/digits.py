"""Ids that are a number, or one prefix and a number, as u17 is: their number finds them in a table, without a hash."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Entries that the table may have for any file, and for each of its rows so far.
_ENTRIES, _ENTRIES_A_ROW = 1 << 25, 8
# Digits that 64 bits hold, whatever they are.
_DIGITS = 18


class DigitIds:
    """Numbers ids 1, 2, ... in the order in which they first appear, as long as all have this form.

    A number has no sign and no leading zero, so that no two ids are one.
    """

    def __init__(self) -> None:
        self._prefix: bytes | None = None
        self._table = np.zeros(0, np.int32)  # number in the text -> id
        self._found: list[np.ndarray] = []  # numbers in the texts, in the order of ids
        self._known = self._rows = 0

    def add(self, texts: pa.Array) -> np.ndarray | None:
        """(n,) int32 ids of the next texts, 0 for a missing one.

        Args:
            texts: (n,) array of texts, missing ones null.

        Returns:
            None where a text has another form, or its number is too large; then it has added nothing.
        """
        self._rows += len(texts)
        if texts.null_count:
            ids = np.zeros(len(texts), np.int32)
            there = texts.is_valid().to_numpy(zero_copy_only=False)
            given = self.add(texts.drop_null()) if there.any() else ids[:0]
            if given is None:
                return None
            ids[there] = given
            return ids
        numbers = self._parse(texts)
        if numbers is None or (most := int(numbers.max(initial=0))) >= max(_ENTRIES, _ENTRIES_A_ROW * self._rows):
            return None
        if most >= len(self._table):
            table = np.zeros(max(most + 1, 2 * len(self._table)), np.int32)
            table[: len(self._table)] = self._table
            self._table = table
        ids = self._table[numbers]
        if len(new := np.flatnonzero(ids == 0)):
            found, first = np.unique(numbers[new], return_index=True)
            found = found[np.argsort(first)]
            self._table[found] = np.arange(self._known + 1, self._known + 1 + len(found))
            self._known += len(found)
            self._found.append(found)
            ids[new] = self._table[numbers[new]]
        return ids

    def texts(self) -> pa.LargeStringArray:
        """The texts of ids 1, 2, ..."""
        numbers = pa.array(np.concatenate([np.empty(0, np.int64), *self._found])).cast(pa.large_string())
        if not self._prefix:
            return numbers
        prefix, nothing = (pa.scalar(text, pa.large_string()) for text in (self._prefix.decode(), ""))
        return pc.binary_join_element_wise(prefix, numbers, nothing)

    def _parse(self, texts: pa.Array) -> np.ndarray | None:
        """(n,) int64 numbers of texts of this form, None where one has another."""
        if len(texts) == 0:
            return np.empty(0, np.int64)
        if self._prefix is None:
            self._prefix = re.sub(r"[0-9]+\Z", "", texts[0].as_py()).encode()
        begin = len(self._prefix)
        if begin and not pc.all(pc.starts_with(texts, self._prefix.decode())).as_py():
            return None
        wide = pa.types.is_large_string(texts.type)
        _, offsets, data = texts.buffers()
        begins = np.frombuffer(offsets, np.int64 if wide else np.int32)[texts.offset :][: len(texts) + 1]
        digits = np.diff(begins) - begin
        if digits.min() < 1 or digits.max() > _DIGITS:
            return None
        # What begins with a digit that is no zero has no sign, and is not hexadecimal.
        first = np.frombuffer(data, np.uint8)[begins[:-1] + begin]
        if not ((first >= ord("1")) & (first <= ord("9")) | (first == ord("0")) & (digits == 1)).all():
            return None
        numbers = texts.cast(pa.large_binary() if wide else pa.binary())
        if begin:
            numbers = pc.binary_slice(numbers, begin, begin + _DIGITS)
        try:
            return numbers.cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid:
            return None
