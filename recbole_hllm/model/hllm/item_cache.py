"""How many items HLLM encodes in a step: the keys of its cache of item vectors, and the limit of a catalogue."""

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


def check_catalogue_limit(settings: HLLMKeys, n_items: int) -> None:
    """Raises ConfigError where a step would encode too many items.

    Args:
        settings: of a model with ``negatives: catalogue`` whose Item LLM is trained.
        n_items: without the padding item.
    """
    if n_items > settings.catalogue_limit:
        raise ConfigError(
            f"negatives: catalogue: a trained Item LLM (item_llm_tuning: {settings.item_llm_tuning}) encodes all "
            f"{n_items} items in every step, more than catalogue_limit: {settings.catalogue_limit}; take "
            "item_llm_tuning: frozen, negatives: shared, or raise catalogue_limit"
        )


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
