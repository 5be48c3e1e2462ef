"""Items in a file: JSON lines as those of an export, or a data set's `.item` file."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from recbole_hllm.errors import DataError, naming
from recbole_hllm.serving.lines import MOST_BYTES, Place, json_lines, read_id

Fields = dict[str, str]

_TYPES = ("token", "token_seq", "float", "float_seq")
_SUCH_AS = '{"id": "7", "fields": {"title": "A title"}}'


def read_items(path: Path, item_field: str, read: Collection[str], shown: Collection[str]) -> dict[str, Fields]:
    """Fields of each item, by its id.

    Args:
        path: ends in ``.item``, which is a table with tabs and a header of ``name:type``; or in ``.jsonl``, with ``id``
            and ``fields`` in each line.
        item_field: the column of a table that has the ids.
        read: columns that a table must have, since the text of an item is made of them.
        shown: columns that are taken of a table too, where it has them.

    Raises:
        DataError: there is no such file, it is of another kind, it has no items, or a line is wrong, which it names.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if path.suffix not in (".item", ".jsonl"):
        raise DataError(f"{path}: items are in a file that ends in .item or .jsonl; unpack one that is compressed")
    found: dict[str, Fields] = {}
    for number, content in _rows(path, item_field, read, shown) if path.suffix == ".item" else _lines(path):
        with naming(f"{path}, line {number}"):
            item, fields = _item(content)
            if item in found:
                raise DataError(f"id: {item!r} is there twice")
        found[item] = fields
    if not found:
        raise DataError(f"{path}: there are no items")
    return found


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    lines = json_lines(path, Place(), holds="item", such_as=_SUCH_AS)
    return ((line.number, line.content) for line, _ in lines if line.content is not None)


def _rows(path: Path, item_field: str, read: Collection[str], shown: Collection[str]) -> Iterator[tuple[int, Any]]:
    """The rows of a table, as the lines of the other kind have them."""
    with path.open("rb") as file:
        with naming(f"{path}, line 1"):
            names = _names(_cells(file.readline(MOST_BYTES + 1), "utf-8-sig"), {item_field, *read})
        ids = names.index(item_field)
        taken = {name: names.index(name) for name in names if name in {*read, *shown}}
        number = 1
        while line := file.readline(MOST_BYTES + 1):
            number += 1
            with naming(f"{path}, line {number}"):
                cells = _cells(line)
                if cells == [""]:
                    continue
                if len(cells) != len(names):
                    raise DataError(f"{len(cells)} columns, but the header has {len(names)} ({', '.join(names)})")
            yield number, {"id": cells[ids], "fields": {name: cells[place] for name, place in taken.items()}}


def _names(header: list[str], needed: set[str]) -> list[str]:
    """The names of the columns."""
    if not all(cell.partition(":")[2] in _TYPES for cell in header):
        raise DataError(
            "a header has a name and a type in each column, and tabs between: item_id:token, title:token_seq"
        )
    names = [cell.partition(":")[0] for cell in header]
    if len(set(names)) < len(names):
        raise DataError(f"two columns have the same name ({', '.join(names)})")
    for name in sorted(needed - set(names)):
        raise DataError(f"no column {name!r}, which this export needs; there are {', '.join(names)}")
    return names


def _cells(line: bytes, encoding: str = "utf-8") -> list[str]:
    if len(line) > MOST_BYTES:
        raise DataError(f"it has more than {MOST_BYTES:,} bytes; one line holds one item")
    try:
        return line.decode(encoding).rstrip("\r\n").split("\t")
    except UnicodeDecodeError as error:
        raise DataError(f"it is no UTF-8 ({error})") from error


def _item(content: Any) -> tuple[str, Fields]:
    if not isinstance(content, dict) or content.keys() != {"id", "fields"} or not isinstance(content["fields"], dict):
        raise DataError(f"an item is such as {_SUCH_AS}")
    fields = content["fields"]
    wrong = [name for name, value in fields.items() if not isinstance(value, str)]
    if wrong:
        raise DataError(f"fields: {wrong[0]} is no text")
    item = read_id("id", content["id"])
    if not item:
        raise DataError("id: it is empty")
    return item, fields
