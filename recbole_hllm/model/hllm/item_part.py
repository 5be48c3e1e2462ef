"""The keys of what lies between HLLM's Item LLM and its User LLM: whitening, head, and a part of the item's id."""

import logging
from typing import Any

import torch

from recbole_hllm.config.keys.hllm import HLLMKeys, ItemPartKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.nn.bounded_ids import BoundedIds


def check_item_part(settings: HLLMKeys) -> None:
    """Raises ConfigError for whitening that would not stay as it is where the head has learned it."""
    if settings.item_whitening == "pca" and settings.item_llm_tuning != "frozen":
        raise ConfigError(
            f"item_whitening: pca: with item_llm_tuning: {settings.item_llm_tuning} the statistics are new in each "
            "epoch, and principal directions may change their order and sign; take zca, which turns vectors as little "
            "as it can, or item_llm_tuning: frozen"
        )


def build_bounded_ids(settings: ItemPartKeys, dataset: Any, width: int) -> BoundedIds | None:
    """The part of the item's id; None: the keys want none.

    Args:
        dataset: the training part.
        width: of an item vector.
    """
    if not settings.item_id_bound:
        return None
    counts = torch.as_tensor(dataset.rows.item_counts())
    return BoundedIds(counts, width, settings.item_id_bound, settings.item_id_min_count)


def tell_unread_of_item_part(logger: logging.Logger, settings: HLLMKeys, has_weights: bool) -> None:
    """Warns of keys of parts that there are not.

    Args:
        has_weights: whether head or id part have any.
    """
    if not settings.item_id_bound:
        tell_unread(logger, settings, ["item_id_min_count"], "item_id_bound is 0")
    if not has_weights:
        tell_unread(logger, settings, ["item_head_learning_rate"], "there is neither an item head nor an id part")
