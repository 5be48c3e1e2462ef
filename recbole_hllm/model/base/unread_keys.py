"""Keys that a user gave and nothing reads, because of another one."""

from collections.abc import Iterable


def tell_unread(logger, config, keys: Iterable[str], why: str) -> None:
    """Warns of those of ``keys`` that have another value than their default.

    Args:
        logger: that the warning goes to.
        config: the run's Config.
        why: the rest of the sentence, such as "content is id".
    """
    given = [name for name in keys if config[name] != config.internal_config_dict.get(name)]
    if given:
        logger.warning(f"{', '.join(given)} without effect: {why}")
