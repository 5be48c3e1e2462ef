"""What clients send and get, as JSON."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

# Later than any date in seconds, and earlier than any in milliseconds.
_LATEST = 1e11
_ID = 256


# What JSON may write and no encoding has.
HALF = "half of a character (a lone surrogate); send whole characters"


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(HALF) from None
    return text


def _id(item: str) -> str:
    if not item.strip() or not item.isprintable():
        raise ValueError("an id has a character that is no blank, and no line breaks or other control characters")
    return item


def _seconds(time: float) -> float:
    if abs(time) > _LATEST:
        raise ValueError("a time is in seconds since 1970; divide milliseconds by 1000")
    return time


Text = Annotated[str, AfterValidator(_text)]
Id = Annotated[str, Field(max_length=_ID), AfterValidator(_text)]
NewId = Annotated[Id, AfterValidator(_id)]
Seconds = Annotated[FiniteFloat, AfterValidator(_seconds)]
# A number where a text is expected, and the other way round, are mistakes.
_STRICT = ConfigDict(extra="forbid", strict=True)


class Wanted(BaseModel):
    """A history, and what is wanted after it."""

    model_config = _STRICT
    items: list[Id] = Field([], description="ids of the history, the oldest first", examples=[["1", "50"]])
    texts: list[Text | dict[Text, Text]] = Field(
        [],
        description="items of the history that are not in the catalogue, as fields, or as the whole text that the "
        "model reads; after `items`",
    )
    user: Id | None = Field(None, description="a user whose history the export has; `items` and `texts` come after it")
    times: list[Seconds] | None = Field(
        None, description="seconds since 1970 of each of `items` and `texts`, for models that read times"
    )
    at: Seconds | None = Field(None, description="seconds of the request; without it: now")
    k: int = Field(10, ge=1, description="how many are wanted")
    exclude: list[Id] = Field([], description="ids that are not to be recommended")
    among: list[Id] | None = Field(None, description="ids of which alone are to be recommended")
    filter_seen: bool = Field(True, description="items of the history are not recommended")
    explain: bool = Field(False, description="say why: which items of the history add most, and which are nearest")


class Reason(BaseModel):
    """An item of the history, beside a recommended one."""

    id: str
    title: str
    contribution: float | None = Field(description="the score, less the score after the history without this item")
    similarity: float | None = Field(description="cosine of the two items' vectors")


class Why(BaseModel):
    """Items of the history that say why."""

    contributing: list[Reason]
    nearest: list[Reason]


class Item(BaseModel):
    """An item of the catalogue."""

    id: str
    title: str
    fields: dict[str, Any]


class RecommendedItem(Item):
    """An item that is recommended."""

    score: float
    why: Why | None = None


class Recommendations(BaseModel):
    """The answer, the best item first."""

    items: list[RecommendedItem]
    version: str = Field(description="of the export that they are from")


class Found(BaseModel):
    """Items that were looked for."""

    items: list[Item]


NewItems = dict[NewId, dict[Text, Text]]


class Added(BaseModel):
    """Items that are on the disk, and recommended from now on."""

    added: list[str]
    items: int = Field(description="how many may be recommended now")


class Removed(BaseModel):
    """An item that is recommended no more."""

    removed: str
    items: int = Field(description="how many may be recommended now")


class Health(BaseModel):
    """What is served."""

    ready: bool
    model: str | None
    dataset: str | None
    version: str = Field(description="a fingerprint of the export")
    items: int = Field(description="how many may be recommended")
    users: int = Field(description="users whose history the export has")
    text_fields: list[str] = Field(description="fields that the model reads of a new item; none: it reads no texts")
    reads_times: bool = Field(description="whether requests need `times`")
    takes_items: bool = Field(description="whether items may be added and removed")


class Mistake(BaseModel):
    """What is wrong."""

    field: str | None
    message: str


class Mistakes(BaseModel):
    """What is wrong with a request, and what to do."""

    errors: list[Mistake]
