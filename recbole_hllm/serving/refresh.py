"""An export with the items of today: those alone are encoded whose text is new."""

from dataclasses import dataclass
from pathlib import Path

from recbole_hllm.errors import naming
from recbole_hllm.serving.item_files import read_items
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
        items: JSON lines such as those of ``items.jsonl`` in an export, with ``id`` and ``fields``; or the ``.item``
            file of a data set, of which those columns are taken that the model reads and that the export shows.
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
    recommender = Recommender.from_pretrained(export, device)
    catalogue = recommender.catalogue
    template = recommender.manifest.get("template") or {"text_keys": ()}
    given = read_items(items, template["text_keys"], set().union(*catalogue.fields))
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
