"""An export with the items of today: those alone are encoded whose text is new."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_hllm.errors import DataError, naming
from recbole_hllm.serving.lines import Line, Place, json_lines, read_id
from recbole_hllm.serving.recommender import Recommender
from recbole_hllm.storage.folders import check_new


@dataclass(frozen=True)
class Refreshed:
    """What was done.

    Attributes:
        new: items that the export did not have.
        changed: those whose text, as the model reads it, is another one.
        same: the others, whose vectors stay; they may be shown with other fields.
        removed: items that are no more recommended.
    """

    new: int
    changed: int
    same: int
    removed: int

    def in_words(self) -> str:
        """A line."""
        known = f"{self.changed:,} with another text, {self.same:,} as before"
        return f"{self.new:,} new items, {known}; {self.removed:,} removed"


def refresh(
    export: str | Path, items: str | Path, folder: str | Path, *, remove: bool = False, device: str = "cpu"
) -> Refreshed:
    """Writes an export with other items; the one that there is stays as it is, since a service may read it.

    Args:
        export: its folder, or ``user/name`` of a repository of the Hugging Face Hub.
        items: JSON lines such as those of ``items.jsonl`` in an export, with ``id`` and ``fields``.
        folder: a new or an empty one; it is there once it is whole.
        remove: items of the export that are not among these are recommended no more. Those that are stay otherwise.
        device: torch's name of where texts are encoded.

    Raises:
        ConfigError: something is in the folder, or it cannot be written.
        DataError: a line of the items is wrong; the error names it.
        ModelError: there is no export, or there are new items and its model reads no texts.
    """
    folder, items = Path(folder).expanduser(), Path(items).expanduser()
    check_new(folder, "refresh")
    given = _read_items(items)
    recommender = Recommender.from_pretrained(export, device)
    catalogue = recommender.catalogue
    read = recommender.new_or_changed(given)
    for item in read:
        with naming(f"{items}, item {item!r}"):
            recommender.text_of(given[item])  # its error says what is wrong
    new, changed = ([item for item in read if (item in catalogue) is known] for known in (False, True))
    recommender.add_items({item: given[item] for item in (*new, *changed)})
    for item in given.keys() - read:
        catalogue.change(item, given[item])
    gone = [item for item, listed in zip(catalogue.ids, catalogue.listed, strict=False) if listed and item not in given]
    if remove:
        recommender.remove_items(gone)
    recommender.is_changed = True
    recommender.save_pretrained(folder)
    return Refreshed(len(new), len(changed), len(given) - len(read), len(gone) if remove else 0)


def _read_items(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    found: dict[str, dict[str, str]] = {}
    for line in _lines(path):
        with naming(f"{path}, line {line.number}"):
            item, fields = _item(line.content)
            if item in found:
                raise DataError(f"id: {item!r} is there twice")
        found[item] = fields
    if not found:
        raise DataError(f"{path}: there are no items")
    return found


def _lines(path: Path) -> Iterator[Line]:
    return (line for line, _ in json_lines(path, Place()) if line.content is not None)


def _item(content: Any) -> tuple[str, dict[str, str]]:
    if not isinstance(content, dict) or content.keys() != {"id", "fields"} or not isinstance(content["fields"], dict):
        raise DataError('an item is such as {"id": "7", "fields": {"title": "A title"}}')
    fields = content["fields"]
    wrong = [name for name, value in fields.items() if not isinstance(value, str)]
    if wrong:
        raise DataError(f"fields: {wrong[0]} is no text")
    return read_id("id", content["id"]), fields
