"""What a Recommender is asked, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One question: what next, after this history?

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
