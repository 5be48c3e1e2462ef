"""S3-Rec: one line of a user and its items, in the order of time.

usage: recbole-hllm convert s3rec FILE... --to=dataset/NAME

  interactions              Beauty.txt: user item item item ..., separated by blanks. There are no times: timestamp is
                            the item's place 0, 1, 2, ... in the user's sequence. It orders a user's items and is no
                            clock time: no split at one time for all users, and no time as a feature. A second line of
                            a user goes on where the first ends
  items                     Beauty_item2attributes.json, where it is there: {"item": [attribute, ...]}; written as
                            attributes

--interactions=FILE and --items=FILE name one of several.
"""

from collections import Counter
from collections.abc import Iterator

from recbole_hllm.data.raw.blocks import Block, blocks_of
from recbole_hllm.data.raw.converters import Conversion, Raw, Table
from recbole_hllm.data.raw.files import RawFile
from recbole_hllm.data.raw.records import parse_record, text_of
from recbole_hllm.data.raw.report import Report
from recbole_hllm.data.raw.tables import is_named
from recbole_hllm.errors import DataError

_INTERACTIONS = {"user_id": "token", "item_id": "token", "timestamp": "float"}
_ITEMS = {"item_id": "token", "attributes": "token_seq"}


def conversion(raw: Raw) -> Conversion:
    """Sequences, and attributes."""
    file = raw.interactions("sequences (.txt)", is_named(r".*\.txt"))
    attributes = raw.items("attributes (_item2attributes.json)", is_named(r".*_item2attributes\.json"))
    inter = Table(
        _INTERACTIONS, [file], lambda report: blocks_of(file.name, list(_INTERACTIONS), _rows(raw, file, report))
    )
    if attributes is None:
        return Conversion({"": inter})
    return Conversion({"": inter}, Table(_ITEMS, [attributes], lambda report: _attributes(raw, attributes, report)))


def _rows(raw: Raw, file: RawFile, report: Report) -> Iterator[tuple[int, list[str]]]:
    places: Counter[str] = Counter()
    for first, data in file.lines(raw.progress):
        for number, line in enumerate(data.split(b"\n")[:-1], first):
            try:
                user, *items = line.decode("utf-8").split() or [""]
            except UnicodeDecodeError as error:
                report.refuse(file.name, number, f"not valid UTF-8 ({error.reason})")
                continue
            if user and not items:
                report.refuse(file.name, number, f"user '{user}' has no items")
            for place, item in enumerate(items, places[user]):
                yield number, [user, item, str(place)]
            report.rows += len(items)
            places[user] += len(items)


def _attributes(raw: Raw, file: RawFile, report: Report) -> Iterator[Block]:
    """One JSON object, perhaps over several lines."""
    try:
        found = parse_record(b"".join(data for _, data in file.lines(raw.progress)))
    except ValueError as error:
        raise DataError(f"{file.name}: {error}") from error
    report.rows += len(found)
    rows = ((number, [item, text_of(found[item])]) for number, item in enumerate(found, 1))
    return blocks_of(file.name, list(_ITEMS), rows)
