"""A catalogue through an Item LLM, without gradients: the vectors before the projection, kept on disk if wanted."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from recbole_hllm.config.keys.language_models import EncodingKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.data.texts.vectors import cached_item_vectors, weights_digest
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.tuning import merged_weights
from recbole_hllm.storage.cache import cache_folder

# Keys of a Hugging Face config that say where a model came from and not what it computes.
_NOT_COMPUTED = ("transformers_version", "architectures", "dtype", "torch_dtype")


def vector_cache(settings: EncodingKeys) -> Path | None:
    """Where vectors are kept; None: nowhere."""
    return cache_folder(settings.cache_dir, settings.data_path) if settings.item_vector_cache else None


def encoder_digest(encoder: ItemEncoder) -> str:
    """Hash of all that decides the vectors of given tokens before the projection: weights, sizes and pooling."""
    llm = json.loads(encoder.backbone.config.to_json_string(use_diff=False))
    shape = {key: value for key, value in llm.items() if key not in _NOT_COMPUTED and not key.startswith("_")}
    aligned_at = encoder.max_text_length if encoder.right_aligned_positions else None
    settings = (json.dumps([shape, encoder.pooling, aligned_at], sort_keys=True), torch.zeros(0))
    item_token = [] if encoder.item_emb_tokens is None else [("item_emb_tokens", encoder.item_emb_tokens)]
    return weights_digest(chain([settings], item_token, merged_weights(encoder.backbone)))


@torch.no_grad()
def encode_catalogue(
    encoder: ItemEncoder,
    catalogue: ItemCatalogue,
    *,
    precision: str | None,
    token_budget: int,
    cache: Path | None,
    weights: str | None = None,
    dtype: type = np.float32,
) -> np.ndarray:
    """Vectors of all items before the projection (`ItemEncoder.pooled`), in evaluation mode.

    Args:
        encoder: on the device to compute on.
        catalogue: token ids of every item.
        precision: ``fp32``, or the autocast type ``bf16`` or ``fp16``.
        token_budget: most padded tokens at once.
        cache: folder of the cache, where only new or changed items are encoded again; None: nothing on disk.
        weights: the encoder's ``encoder_digest`` where it is known already.
        dtype: what vectors are kept in, np.float32 or np.float16.

    Returns:
        (n_items, H), memory-mapped and read-only with a cache; row 0 is zeros.

    Raises:
        DataError: the disk is full or the cache cannot be written.
    """
    device = next(encoder.parameters()).device

    def encode(ids: np.ndarray) -> np.ndarray:
        tokens, lengths = (part.to(device) for part in catalogue.lookup(ids))
        with autocast(device, AUTOCAST_DTYPES[precision]):
            # Never for no items at all, so that nobody asks for the size of its vectors.
            vectors = encode_items(encoder.pooled, tokens, lengths, token_budget=token_budget)  # type: ignore[arg-type]
            return vectors.float().cpu().numpy()

    settings = {"weights": weights or encoder_digest(encoder), "precision": precision} if cache else {}
    mode = encoder.training
    encoder.eval()
    try:
        width = encoder.pooled_size
        return cached_item_vectors(encode, catalogue, width=width, settings=settings, cache=cache, dtype=dtype)
    finally:
        encoder.train(mode)
