"""Items in a file: JSON lines as those of an export, or a data set's `.item` file."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from recbole_hllm.errors import DataError, did_you_mean, naming
from recbole_hllm.serving.lines import MOST_BYTES, Place, json_lines, read_id

Fields = dict[str, str]


def read_items(path: Path, read: Collection[str], shown: Collection[str]) -> dict[str, Fields]:
    """Fields of each item, by its id.

    Args:
        path: ends in ``.item``, which is a table with tabs, a header of ``name:type`` and ids in its first column; or
            has JSON lines with ``id`` and ``fields``.
        read: columns that a table must have, since the text of an item is made of them.
        shown: columns that are taken of a table too, where it has them.

    Raises:
        DataError: there is no such file, it has no items, or a line is wrong; the error names it.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    found: dict[str, Fields] = {}
    for number, content in _rows(path, read, shown) if path.suffix == ".item" else _lines(path):
        with naming(f"{path}, line {number}"):
            item, fields = _item(content)
            if item in found:
                raise DataError(f"id: {item!r} is there twice")
        found[item] = fields
    if not found:
        raise DataError(f"{path}: there are no items")
    return found


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    return ((line.number, line.content) for line, _ in json_lines(path, Place()) if line.content is not None)


def _rows(path: Path, read: Collection[str], shown: Collection[str]) -> Iterator[tuple[int, Any]]:
    """The rows of a table, as the lines of the other kind have them."""
    with path.open("rb") as file:
        with naming(f"{path}, line 1"):
            names = [cell.partition(":")[0] for cell in _cells(file.readline(MOST_BYTES + 1), "utf-8-sig")]
            for name in read:
                if name not in names[1:]:
                    raise DataError(f"no column {name!r}, which the model reads{did_you_mean(name, names[1:])}")
        taken = {name: place for place, name in enumerate(names) if place and name in {*read, *shown}}
        number = 1
        while line := file.readline(MOST_BYTES + 1):
            number += 1
            with naming(f"{path}, line {number}"):
                cells = _cells(line)
                if cells == [""]:
                    continue
                if len(cells) != len(names):
                    raise DataError(f"{len(cells)} columns, but the header has {len(names)} ({', '.join(names)})")
            yield number, {"id": cells[0], "fields": {name: cells[place] for name, place in taken.items()}}


def _cells(line: bytes, encoding: str = "utf-8") -> list[str]:
    if len(line) > MOST_BYTES:
        raise DataError(f"it has more than {MOST_BYTES:,} bytes; one line holds one item")
    try:
        return line.decode(encoding).rstrip("\r\n").split("\t")
    except UnicodeDecodeError as error:
        raise DataError(f"it is no UTF-8 ({error})") from error


def _item(content: Any) -> tuple[str, Fields]:
    if not isinstance(content, dict) or content.keys() != {"id", "fields"} or not isinstance(content["fields"], dict):
        raise DataError('an item is such as {"id": "7", "fields": {"title": "A title"}}')
    fields = content["fields"]
    wrong = [name for name, value in fields.items() if not isinstance(value, str)]
    if wrong:
        raise DataError(f"fields: {wrong[0]} is no text")
    item = read_id("id", content["id"])
    if not item:
        raise DataError("id: it is empty")
    return item, fields
