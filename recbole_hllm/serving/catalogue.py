"""The items of a Recommender: ids, what is shown of them, and which of them may be recommended."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from recbole_hllm.errors import DataError, did_you_mean

# Of unknown ids that an error names.
_EXAMPLES = 5
# Ids that an unknown one is compared with, which takes 10 ms of each thousand.
_MOST_COMPARED = 2000


class Catalogue:
    """Items by number, from 1; number 0 is padding. An id that is given as a number is the text of it.

    Args:
        ids: of the items, all different.
        fields: what is shown of each.

    Attributes:
        listed: bool (N,), whether each item may be recommended; a removed one stays readable in histories.
    """

    def __init__(self, ids: Sequence[str], fields: Sequence[Mapping[str, str]]) -> None:
        self.ids = ["", *ids]
        self.fields: list[Mapping[str, str]] = [{}, *fields]
        self._numbers = {item: number for number, item in enumerate(ids, start=1)}
        if len(self._numbers) != len(ids):
            raise DataError("two items of the catalogue have the same id")
        self.listed = np.ones(len(self.ids), bool)
        self.listed[0] = False

    def __len__(self) -> int:
        """How many items may be recommended."""
        return int(self.listed.sum())

    def __contains__(self, item: object) -> bool:
        return str(item) in self._numbers

    def number(self, item: str) -> int | None:
        """Of an id; None where it is not known."""
        return self._numbers.get(str(item))

    def numbers(self, items: Iterable[str], what: str) -> list[int]:
        """Of ids.

        Raises:
            DataError: some are not known; ``what`` says what they are.
        """
        items = list(map(str, items))
        unknown = [item for item in items if item not in self._numbers]
        if unknown:
            near = did_you_mean(str(unknown[0]), self._numbers) if len(self._numbers) <= _MOST_COMPARED else ""
            more = f" and {len(unknown) - _EXAMPLES} more" if len(unknown) > _EXAMPLES else ""
            names = ", ".join(repr(item) for item in unknown[:_EXAMPLES])
            raise DataError(f"{what}: not in the catalogue: {names}{more}{near}")
        return [self._numbers[item] for item in items]

    def add(self, item: str, fields: Mapping[str, str]) -> int:
        """The number of a new item.

        Raises:
            DataError: its id is empty, or known.
        """
        item, number = str(item), len(self.ids)
        if not item or item in self._numbers:
            raise DataError(f"items: {item!r} is no id of a new item")
        if number >= len(self.listed):
            self.listed = np.concatenate([self.listed, np.zeros(max(1024, number // 8), bool)])
        self.fields.append(fields)
        self.ids.append(item)
        self._numbers[item] = number
        self.listed[number] = True
        return number

    def change(self, item: str, fields: Mapping[str, str]) -> int:
        """Gives an item other fields, and lists it again where it was removed; its number."""
        number = self._numbers[str(item)]
        self.fields[number] = fields
        self.listed[number] = True
        return number

    @property
    def removed(self) -> list[str]:
        """Ids of items that were taken off the list."""
        return [self.ids[number] for number in np.flatnonzero(~self.listed[1 : len(self.ids)]) + 1]

    def remove(self, numbers: Iterable[int]) -> None:
        """Takes items off the list."""
        self.listed[list(numbers)] = False
