"""The entries of a journal, in a Recommender."""

from collections.abc import Mapping

from torch import Tensor

from recbole_hllm.serving.recommender import Recommender
from recbole_hllm.serving.service.journal import Entry


def replay(entries: Mapping[str, Entry], recommender: Recommender, export: str) -> dict[str, Tensor]:
    """Adds and removes items as a journal's entries say.

    An item that the export has with the same text keeps the export's vector: it is one that was added, and that the
    model was trained with since. Vectors of another export are encoded anew.

    Args:
        entries: by id.
        recommender: of the export.
        export: its fingerprint.

    Returns:
        Vectors of items that were encoded anew.

    Raises:
        ModelError: the export reads no texts, and some must be encoded.
    """
    fields = {item: entry.fields for item, entry in entries.items() if entry.fields is not None}
    known: dict[str, Tensor] = {}
    for item in (changed := recommender.new_or_changed(fields)):
        vector = entries[item].vector
        if vector is not None and entries[item].export == export:
            known[item] = vector
    encoded = recommender.vectors_of({item: fields[item] for item in changed if item not in known})
    recommender.add_items(fields, known | encoded)
    removed = [item for item, entry in entries.items() if not entry.listed and item in recommender.catalogue]
    recommender.remove_items(removed)
    return encoded
