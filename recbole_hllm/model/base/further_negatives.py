"""Negatives beside the drawn ones, as the keys of a next-item model want them."""

from typing import Any

import torch

from recbole_hllm.config.keys.next_item import NextItemLossKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.together import items_of_all
from recbole_hllm.nn.negatives import CrossBatchMemory, FurtherNegatives, log_q_bias
from recbole_hllm.units import gigabytes

# Of a drawn negative, at least: bytes of its id, sorted, with the places that sorting gives and takes; and copies of
# its vector, with the gradient. Those that count for a position have more.
_OF_ID, _COPIES = 32, 2


def check_further(settings: NextItemLossKeys, has_cache: bool = False) -> None:
    """Raises ConfigError for keys that contradict each other or leave no negatives.

    Args:
        settings: of the model.
        has_cache: whether the model has a cache of item vectors, see `ItemCache`.
    """
    if settings.negatives == "cached" and not has_cache:
        raise ConfigError(
            "negatives: cached is of an HLLM whose Item LLM is trained (item_llm_tuning full, lora or last); other "
            "models have every item's vector at hand"
        )
    further = settings.in_batch_negatives or settings.cross_batch_negatives
    if further and settings.negatives != "shared":
        raise ConfigError(
            f"negatives: {settings.negatives}: in_batch_negatives and cross_batch_negatives join shared ones; take "
            "negatives: shared, or leave them out"
        )
    if further and settings.loss == "gbce":
        raise ConfigError(
            "loss: gbce corrects for negatives drawn from all items alike; leave out in_batch_negatives and "
            "cross_batch_negatives, or take loss: softmax"
        )
    if settings.cross_batch_correction and not settings.cross_batch_negatives:
        raise ConfigError("cross_batch_correction: nothing is kept of earlier batches; give cross_batch_negatives")
    if settings.num_negatives == 0 and not settings.in_batch_negatives:
        raise ConfigError("num_negatives: 0 leaves nothing to compare with; add in_batch_negatives: True, or draw some")


def check_room(number: int, vectors: int, width: int, free: float) -> None:
    """Raises ConfigError where so many negatives do not fit into memory, however they are computed.

    Args:
        number: of all that a step draws.
        vectors: how many are in memory for them.
        width: of an item vector.
        free: bytes.
    """
    needed = number * _OF_ID + vectors * 4 * _COPIES * width
    if needed > free:
        raise ConfigError(
            f"the {number:,} negatives of a step need {gigabytes(needed)} at least, and {gigabytes(free)} are free; "
            "take fewer num_negatives, or a smaller train_batch_size where they grow with it"
        )


def further_negatives(settings: NextItemLossKeys, dataset: Any, width: int) -> FurtherNegatives | None:
    """What the keys want beside drawn negatives; None: nothing.

    Args:
        settings: of the model, which ``check_further`` has seen.
        dataset: the training part.
        width: of an item vector.
    """
    size = settings.cross_batch_negatives
    if not size and not settings.in_batch_negatives:
        return None
    bias = None
    if settings.in_batch_negatives:
        bias = log_q_bias(torch.as_tensor(dataset.rows.item_counts()))
    memory = CrossBatchMemory(size, width, settings.cross_batch_correction) if size else None
    return FurtherNegatives(bias, memory, items_of_all)
