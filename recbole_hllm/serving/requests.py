"""What a Recommender is asked, and what it answers."""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recbole_hllm.errors import ConfigError, DataError

# Seconds, to both sides of 1970, beyond which no time is one.
_FURTHEST = 1e15


@dataclass(frozen=True)
class Request:
    """One question: what next, after this history?

    Ids are texts; those given as numbers, as many data sets have them, become texts.

    Attributes:
        items: ids of the history, the oldest first.
        texts: of a history whose items are not in the catalogue, as fields by their name, or as one text each; they
            come after ``items``. For models that read texts.
        user: id of a user whose history the export holds; ``items`` and ``texts`` come after it.
        times: seconds since 1970 of each item and text, for models that read times.
        at: seconds of the request; None: now.
        k: how many are wanted.
        exclude: ids that are not to be recommended.
        among: ids of which alone are to be recommended; None: the catalogue.
        filter_seen: items of the history are not recommended.

    Raises:
        DataError: one thing in place of a list, times that are no numbers or not one for each item and text.
        ConfigError: k is no positive number.
    """

    items: Sequence[str] = ()
    texts: Sequence[str | Mapping[str, str]] = ()
    user: str | None = None
    times: Sequence[float] | None = None
    at: float | None = None
    k: int = 10
    exclude: Sequence[str] = ()
    among: Sequence[str] | None = None
    filter_seen: bool = True

    def __post_init__(self) -> None:
        put = object.__setattr__  # who asks cannot change a question, once it is one
        put(self, "items", _ids(self.items, "items"))
        put(self, "exclude", _ids(self.exclude, "exclude"))
        put(self, "among", None if self.among is None else _ids(self.among, "among"))
        put(self, "user", None if self.user is None else str(self.user))
        put(self, "texts", _texts(self.texts))
        put(self, "k", _positive(self.k))
        if self.at is not None:
            put(self, "at", _seconds([self.at], "at")[0])
        if self.times is not None:
            put(self, "times", _seconds(_listed(self.times, "times"), "times"))
            if len(self.times) != (given := len(self.items) + len(self.texts)):
                raise DataError(f"times: {len(self.times)} of them for {given} items and texts; give one for each")


def _listed(values: Any, what: str) -> tuple[Any, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise DataError(f"{what}: {str(values)[:40]!r} is not a list")
    return tuple(values)


def _ids(values: Any, what: str) -> tuple[str, ...]:
    return tuple(map(str, _listed(values, what)))


def _texts(values: Any) -> tuple[str | Mapping[str, str], ...]:
    texts = _listed(values, "texts")
    if wrong := [text for text in texts if not isinstance(text, str | Mapping)]:
        raise DataError(f"texts: {str(wrong[0])[:40]!r} is neither a text nor fields by their name")
    return texts


def _positive(k: Any) -> int:
    try:
        number = operator.index(k)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"k: {k!r} is no positive number of items")
    return number


def _seconds(values: Iterable[Any], what: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what}: not a number of seconds since 1970: {error}") from error
    if wrong := [number for number in numbers if not math.isfinite(number) or abs(number) > _FURTHEST]:
        raise DataError(f"{what}: {wrong[0]} is no number of seconds since 1970")
    return numbers


@dataclass(frozen=True)
class Recommended:
    """One recommended item.

    Attributes:
        id: of the item.
        score: as the model has it; the higher, the better.
        fields: what is shown of the item, such as its title.
    """

    id: str
    score: float
    fields: Mapping[str, Any] = field(default_factory=dict)
