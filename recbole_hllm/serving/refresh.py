"""An export with the items of today: those alone are encoded whose text is new."""

from dataclasses import dataclass
from pathlib import Path

from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.errors import DataError, naming
from recbole_hllm.serving.item_files import Fields, read_items
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
        blank: those that have no text any more, or are new and have none: left as they were, or out.
    """

    new: int
    changed: int
    same: int
    removed: int
    blank: int = 0

    def in_words(self) -> str:
        """A line."""
        known = f"{self.changed:,} with another text, {self.same:,} as before"
        blank = f"; {self.blank:,} without a text, left out or as they were" if self.blank else ""
        return f"{self.new:,} new items, {known}; {self.removed:,} removed{blank}"


def refresh(
    export: str | Path, items: str | Path, folder: str | Path, *, remove: bool = False, device: str = "cpu"
) -> Refreshed:
    """Writes an export with other items; the one that there is stays as it is, since a service may read it.

    Args:
        export: its folder, or ``user/name`` of a repository of the Hugging Face Hub.
        items: JSON lines such as those of ``items.jsonl`` in an export, with ``id`` and ``fields``; or the ``.item``
            file of a data set. That must have the columns that the model reads; those that the export shows are taken
            too, and what it does not say of a known item stays.
        folder: a new or an empty one; it is there once it is whole.
        remove: items of the export that are not among these are recommended no more.
        device: torch's name of where texts are encoded.

    Raises:
        ConfigError: something is in the folder, or it cannot be written.
        DataError: a line of the items is wrong, which the error names; or all items would be removed.
        ModelError: there is no export, or there are new items and its model reads no texts.
    """
    folder, items = Path(folder).expanduser(), Path(items).expanduser()
    check_new(folder, "refresh")
    recommender = Recommender.from_pretrained(export, device)
    catalogue = recommender.catalogue
    given = _read(items, recommender)
    if remove and not any(item in catalogue for item in given):
        raise DataError(f"{items}: the export has none of its ids, and remove would leave none of its items")
    differ = recommender.new_or_changed(given)
    template = _template(recommender)
    blank = {item for item in differ if template is not None and _is_blank(template, given[item])}
    read = [item for item in differ if item not in blank]
    for item in read:
        with naming(f"{items}, item {item!r}"):
            recommender.text_of(given[item])  # its error says what is wrong
    new, changed = ([item for item in read if (item in catalogue) is known] for known in (False, True))
    recommender.add_items({item: given[item] for item in (*new, *changed)})
    same = given.keys() - set(differ)
    for item in same:
        catalogue.change(item, given[item])
    gone = [item for item, listed in zip(catalogue.ids, catalogue.listed, strict=False) if listed and item not in given]
    if remove:
        recommender.remove_items(gone)
    recommender.is_changed = True
    recommender.save_pretrained(folder)
    return Refreshed(len(new), len(changed), len(same), len(gone) if remove else 0, len(blank))


def _read(path: Path, recommender: Recommender) -> dict[str, Fields]:
    """The items of a file; what a table does not say of a known item stays."""
    catalogue, manifest = recommender.catalogue, recommender.manifest
    template = _template(recommender)
    read = template.text_keys if template is not None else ()
    items = read_items(path, manifest.get("item_field", "item_id"), read, set().union(*catalogue.fields))
    if path.suffix == ".item":
        for item, fields in items.items():
            if (number := catalogue.number(item)) is not None:
                items[item] = {**catalogue.fields[number], **fields}
    return items


def _template(recommender: Recommender) -> TextTemplate | None:
    """How the text of an item is made; None of a model that reads none."""
    described = recommender.manifest.get("template")
    return TextTemplate(**described) if described else None


def _is_blank(template: TextTemplate, fields: Fields) -> bool:
    """Whether the fields that the model reads are there, and say nothing."""
    return any(key in fields for key in template.text_keys) and template.text_of(fields) == template.item_prompt
