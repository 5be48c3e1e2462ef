"""The keys of HLLM's cache of item vectors, with which fewer items are encoded in a step."""

from recbole_hllm.config.keys.hllm import HLLMKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.further_negatives import check_further
from recbole_hllm.nn.item_cache import ItemCache


def _wanted(settings: HLLMKeys) -> bool:
    return settings.negatives == "cached" or settings.live_items is not None


def check_cache(settings: HLLMKeys) -> None:
    """Raises ConfigError for keys of a cache that there is not, and for negatives that contradict each other."""
    trained = settings.item_llm_tuning != "frozen"
    check_further(settings, has_cache=trained)
    if settings.live_items is not None and not trained:
        raise ConfigError("live_items: with item_llm_tuning: frozen no item is encoded in a step; leave it out")
    for key in ("cache_refresh_steps", "cache_refresh_items"):
        if getattr(settings, key) is not None and not _wanted(settings):
            raise ConfigError(f"{key}: there is no cache of item vectors; take negatives: cached or live_items")
    if settings.cache_refresh_items is not None and settings.cache_refresh_steps is None:
        raise ConfigError("cache_refresh_items: say after how many steps as well, cache_refresh_steps")


def build_cache(settings: HLLMKeys, n_items: int, width: int) -> ItemCache | None:
    """The cache that the keys want; None: none.

    Args:
        settings: of the model, which ``check_cache`` has seen.
        n_items: with the padding item.
        width: of an item vector.
    """
    if not _wanted(settings):
        return None
    return ItemCache(n_items, width, settings.cache_refresh_steps, settings.cache_refresh_items)
