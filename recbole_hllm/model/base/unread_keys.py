"""Keys that a user gave and nothing reads, because of another one."""

import logging
from collections.abc import Iterable

from recbole_hllm.config.schema import Settings


def tell_unread(logger: logging.Logger, settings: Settings, keys: Iterable[str], why: str) -> None:
    """Warns of those of ``keys`` that have another value than their default.

    Args:
        logger: that the warning goes to.
        settings: of the model.
        why: the rest of the sentence, such as "content is id".
    """
    given = [name for name in keys if not settings.is_default(name)]
    if given:
        logger.warning(f"{', '.join(given)} without effect: {why}")
