"""How HLLM reads the items of a step, for what counts a training's work."""

from functools import partial
from typing import Any

import numpy as np
from torch import nn

from recbole_hllm.model.base.contract import ItemReading
from recbole_hllm.nn.item_encoder import StoredItemVectors
from recbole_hllm.nn.layers import repeated_layers


def item_reading(model: Any) -> ItemReading:
    """Stored vectors cost no tokens; the Item LLM reads each distinct item of a batch, and the head one vector of each.

    Args:
        model: an HLLM.
    """
    encoder, settings = model.item_encoder, model.settings
    head = [(encoder.projection, 1)]
    if isinstance(encoder, StoredItemVectors):
        return ItemReading(encoder, np.zeros(model.n_items, int), of_items=head)
    tokens = np.diff(model.catalogue.offsets) + (encoder.item_emb_tokens is not None)
    llm: Any = encoder.backbone.config
    memory = partial(model.item_memory.of_step, model, encoder)
    layers, left_out = settings.item_llm_layers_trained, list[nn.Module]()
    if layers is not None:  # what those below make of each text is known
        left_out = list(repeated_layers(encoder.backbone))[:-layers]
    size = (layers or llm.num_hidden_layers, llm.hidden_size)
    return ItemReading(encoder, tokens, memory, *size, settings.live_items, left_out, head)


def items_are_trained(model: Any) -> bool:
    """Whether the Item LLM of an HLLM, what comes after it, or a part of the item's id is."""
    parts = (part for part in (model.item_encoder, model.id_part) if part is not None)
    return any(weight.requires_grad for part in parts for weight in part.parameters())
