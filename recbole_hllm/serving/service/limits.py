"""What the service takes at most."""

from dataclasses import dataclass, fields

from recbole_hllm.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Bounds of what a client may send, and of what waits.

    Attributes:
        max_body: bytes of a request's body.
        max_history: ids of ``items``; texts, and what the export has of a user, do not count.
        max_texts: texts of a request, which the Item LLM reads.
        max_k: items that are wanted.
        max_ids: ids of ``exclude``, and of ``among``.
        max_items: items that are added at once.
        max_text: characters of a text or of one field of an item.
        queue: requests that wait; one more is refused with 503.
        batch: requests that are read and scored together.
    """

    max_body: int = 1_000_000
    max_history: int = 1000
    max_texts: int = 50
    max_k: int = 500
    max_ids: int = 10_000
    max_items: int = 100
    max_text: int = 4000
    queue: int = 256
    batch: int = 32

    def __post_init__(self) -> None:
        for bound in fields(self):
            if getattr(self, bound.name) < 1:
                raise ConfigError(f"serve: --{bound.name.replace('_', '-')} is a number from 1 on")
