"""What the Amazon data of 2014, 2018 and 2023 have in common: ratings, reviews, metadata."""

import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser

from recbole_hllm.data.raw.converters import Raw, Table
from recbole_hllm.data.raw.delimited import header_of
from recbole_hllm.data.raw.records import Record, id_of, names_of, number_of, text_of
from recbole_hllm.data.raw.tables import delimited_table, is_named, record_table
from recbole_hllm.errors import DataError

INTERACTIONS = {"item_id": "token", "user_id": "token", "rating": "float", "timestamp": "float"}
# Columns of items, in any year.
ITEM_COLUMNS = {
    "title": "token_seq", "description": "token_seq", "features": "token_seq", "brand": "token", "store": "token",
    "categories": "token_seq", "main_category": "token", "price": "token",
}  # fmt: skip
# Column -> how it is called in the metadata of some year.
_RAW = {"features": ("features", "feature"), "categories": ("categories", "category"),
        "main_category": ("main_category", "main_cat")}  # fmt: skip
_LISTS = ("categories",)
_ASIN = "[0-9B][0-9A-Z]{9}"


def ratings_or_reviews(raw: Raw, ratings: str, reviews: str, order: Sequence[str]) -> Table:
    """Interactions of 2014 and 2018.

    Args:
        raw: the conversion.
        ratings, reviews: patterns of the names of a CSV file without a header, and of a file of records.
        order: columns of the first.

    Raises:
        DataError: there is no such file, or there are several, or its columns have another order.
    """
    fits = (is_named(ratings), is_named(reviews))
    file = raw.interactions(f"ratings or reviews ({ratings} or {reviews})", lambda file: any(fit(file) for fit in fits))
    if fits[1](file) or not file.stem.endswith(".csv"):
        return record_table(raw, [file], INTERACTIONS, _review)
    cells = dict(zip(order, header_of(file), strict=False))
    if re.fullmatch(_ASIN, cells.get("user_id", "")) and not re.fullmatch(_ASIN, cells.get("item_id", "")):
        raise DataError(
            f"{file.name}, line 1: expected are {', '.join(order)}, but '{cells['user_id']}' is an item; the data of "
            "2014 begin with the user, those of 2018 with the item: convert it as the other one"
        )
    return delimited_table(raw, file, {name: name for name in INTERACTIONS}, INTERACTIONS, columns=order)


def _review(record: Record) -> list[str | None]:
    ids = (id_of(record.get(name)) for name in ("asin", "reviewerID"))
    return [*ids, number_of(record.get("overall")), number_of(record.get("unixReviewTime"))]


def items_of(raw: Raw, pattern: str, key: str, columns: Sequence[str], plain: bool = False) -> Table | None:
    """Items of metadata.

    Args:
        raw: the conversion.
        pattern: of the name of the metadata.
        key: what holds the id.
        columns: those of ``ITEM_COLUMNS`` that are written.
        plain: tags of HTML are left out of the texts.
    """
    file = raw.items(f"metadata ({pattern})", is_named(pattern))
    if file is None:
        return None
    kinds = {"item_id": "token", **{name: ITEM_COLUMNS[name] for name in columns}}
    readers = [_reader(name, plain) for name in columns]

    def row(record: Record) -> list[str | None]:
        return [id_of(record.get(key)), *(read(record) for read in readers)]

    return record_table(raw, [file], kinds, row, _unwanted(raw, key))


def _unwanted(raw: Raw, key: str) -> Callable[[bytes], bool]:
    """Whether a line names items, and none that is wanted: reading a literal takes a hundred times as long."""
    named = re.compile(rf"""["']{key}["']: *["']({_ASIN})["']""".encode())

    def unwanted(line: bytes) -> bool:
        found = named.findall(line) if raw.catalogue is not None else []
        return bool(found) and not any(item.decode() in (raw.catalogue or ()) for item in found)

    return unwanted


def _reader(name: str, plain: bool) -> Callable[[Record], str | None]:
    keys, text = _RAW.get(name, (name,)), names_of if name in _LISTS else text_of

    def read(record: Record) -> str | None:
        found = text(next((record[key] for key in keys if key in record), None))
        return without_tags(found) if plain and found and "<" in found else found

    return read


class _Text(HTMLParser):
    """Collects the text between tags, but not that of scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._silent += tag in ("script", "style")
        self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style") and self._silent > 0
        self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")


def without_tags(text: str) -> str:
    """A text of HTML without its tags, a blank for each; entities stay as they are."""
    parser = _Text()
    parser.feed(text)
    parser.close()
    return "".join(parser.parts).strip()
