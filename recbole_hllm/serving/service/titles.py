"""Items by the beginning of their id or title, for a box that completes what is typed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock

import numpy as np

from recbole_hllm.serving.catalogue import Catalogue

# Fields that are a title, the first one that an item has; without one of these its first field is.
_TITLES = ("title", "movie_title", "item_title", "name", "item_name")


def title_of(fields: Mapping[str, str]) -> str:
    """What names an item to a reader; empty where it has no fields."""
    named = next((fields[name] for name in _TITLES if fields.get(name)), None)
    return str(named if named is not None else next(iter(fields.values()), ""))


class Titles:
    """Finds items by what is typed. The text that is searched is made when it is first asked for, and no start waits.

    Args:
        catalogue: whose items they are; those it lists are found.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._numbers, self._making = range(1, len(catalogue.ids)), Lock()
        self._made: _Lines | None = None
        self._later: dict[int, str] = {}
        self._added = _Lines((), ())

    def add(self, items: Iterable[str]) -> None:
        """Finds items that were added, or have other fields now."""
        numbers = self._catalogue.numbers(items, "items")
        self._later |= {number: self._line(number) for number in numbers}
        self._added = _Lines(list(self._later), list(self._later.values()))

    def search(self, typed: str, limit: int) -> list[int]:
        """Numbers of listed items: that with this id, then those whose id, title, word of the title begins with it, or
        that have it anywhere. Without a word: the first items."""
        typed = " ".join(typed.split())
        if not typed:
            return self._some((int(number) for number in np.flatnonzero(self._catalogue.listed)), limit)
        exact, typed = self._catalogue.number(typed), typed.lower()
        return self._some(self._matches(exact, typed), limit, typed)

    @property
    def _first(self) -> "_Lines":
        with self._making:
            if self._made is None:
                self._made = _Lines(self._numbers, [self._line(number) for number in self._numbers])
            return self._made

    def _matches(self, exact: int | None, typed: str) -> Iterator[int]:
        if exact is not None:
            yield exact
        for before in ("\n", "\t", " ", ""):
            yield from self._added.find(before + typed)
            yield from self._first.find(before + typed)

    def _some(self, numbers: Iterator[int], limit: int, typed: str = "") -> list[int]:
        found: dict[int, None] = {}
        for number in numbers:
            if self._catalogue.listed[number] and number not in found and typed in self._line(number):
                found[number] = None
                if len(found) == limit:
                    break
        return list(found)

    def _line(self, number: int) -> str:
        named = self._catalogue.ids[number], title_of(self._catalogue.fields[number])
        return "\t".join(" ".join(name.split()) for name in named).lower()


class _Lines:
    """One text of many lines, which is searched as fast as texts are."""

    def __init__(self, numbers: Sequence[int], lines: Sequence[str]) -> None:
        self._numbers, self._text = numbers, "\n" + "\n".join(lines) + "\n"
        self._begins = np.cumsum([1, *(len(line) + 1 for line in lines[:-1])])

    def find(self, needle: str) -> Iterator[int]:
        """Numbers of lines that have it, a line break standing before each line."""
        place = self._text.find(needle) if len(self._numbers) else -1
        while place >= 0:
            row = int(np.searchsorted(self._begins, place + (needle[0] == "\n"), side="right")) - 1
            yield self._numbers[row]
            if row + 1 == len(self._begins):
                return
            place = self._text.find(needle, int(self._begins[row + 1]) - 1)
