"""An export in memory."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_hllm.serving.fingerprint import fingerprint
from recbole_hllm.serving.recommender import Recommender
from recbole_hllm.serving.requests import Recommended
from recbole_hllm.serving.service.titles import Titles, title_of


@dataclass(frozen=True)
class Loaded:
    """An export that is served.

    Args:
        recommender: of it, with the items of the journal.
        version: its fingerprint.
        titles: of its items.
    """

    recommender: Recommender
    version: str
    titles: Titles

    def shown(self, item: Recommended) -> dict[str, Any]:
        """An item as an answer has it."""
        return {"id": item.id, "title": title_of(item.fields), "score": item.score, "fields": dict(item.fields)}

    def item(self, number: int) -> dict[str, Any]:
        """An item of the catalogue as an answer has it."""
        fields = self.recommender.catalogue.fields[number]
        return {"id": self.recommender.catalogue.ids[number], "title": title_of(fields), "fields": dict(fields)}

    def title(self, item: str) -> str:
        """Of an id; of what is no id, a text of a history, the text itself."""
        number = self.recommender.catalogue.number(item)
        return item if number is None else title_of(self.recommender.catalogue.fields[number])

    def described(self) -> dict[str, Any]:
        """What /health says of it."""
        recommender, template = self.recommender, self.recommender.manifest.get("template")
        return {
            "model": recommender.manifest.get("model"),
            "dataset": recommender.manifest.get("dataset"),
            "version": self.version,
            "items": len(recommender.catalogue),
            "users": len(recommender.histories.users),
            "text_fields": list(template["text_keys"]) if template and recommender.encoder else [],
            "reads_times": recommender.served.reads_times,
        }


def load(folder: Path, **options: Any) -> Loaded:
    """Reads an export.

    Args:
        folder: of the export; where it is a link, what it leads to now.
        options: of ``Recommender.from_pretrained``.

    Raises:
        ModelError: there is no export, or a damaged one.
    """
    folder = folder.expanduser().resolve()
    gc.disable()  # a catalogue is many objects and no garbage, and looking for some would halt requests later
    try:
        recommender = Recommender.from_pretrained(folder, **options)
        return Loaded(recommender, fingerprint(folder), Titles(recommender.catalogue))
    finally:
        gc.enable()
        gc.collect()  # what is garbage by now would stay for ever
        gc.freeze()


def free() -> None:
    """Frees an export whose place another one took; of what is frozen the collector frees nothing."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
