"""A catalogue through an Item LLM, without gradients: the vectors before the projection, kept on disk if wanted.

Of several processes each encodes its share of the items, in the chunks that one process would make.
"""

import json
from collections.abc import Collection
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_hllm.config.keys.language_models import EncodingKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.data.texts.vectors import cached_item_vectors, kept_item_vectors, weights_digest
from recbole_hllm.nn.chunked import encode_items, share_of_chunks
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.tuning import merged_weights
from recbole_hllm.processes import current
from recbole_hllm.storage.cache import cache_folder

# Keys of a Hugging Face config that say where a model came from and not what it computes.
_NOT_COMPUTED = ("transformers_version", "architectures", "dtype", "torch_dtype")


def vector_cache(settings: EncodingKeys) -> Path | None:
    """Where vectors are kept; None: nowhere."""
    return cache_folder(settings.cache_dir, settings.data_path) if settings.item_vector_cache else None


def encoder_digest(encoder: ItemEncoder, without: Collection[nn.Module] = ()) -> str:
    """Hash of all that decides the vectors of given tokens before the projection: weights, sizes and pooling.

    Args:
        encoder: of the vectors.
        without: parts of the language model whose weights do not count.
    """
    llm = json.loads(encoder.backbone.config.to_json_string(use_diff=False))
    shape = {key: value for key, value in llm.items() if key not in _NOT_COMPUTED and not key.startswith("_")}
    aligned_at = encoder.max_text_length if encoder.right_aligned_positions else None
    settings = (json.dumps([shape, encoder.pooling, aligned_at], sort_keys=True), torch.zeros(0))
    item_token = [] if encoder.item_emb_tokens is None else [("item_emb_tokens", encoder.item_emb_tokens)]
    left_out = tuple(f"{name}." for name, part in encoder.backbone.named_modules() if part in without)
    weights = ((name, weight) for name, weight in merged_weights(encoder.backbone) if not name.startswith(left_out))
    return weights_digest(chain([settings], item_token, weights))


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

    All processes call it: the first one reads and writes the cache, and sends what others do not find in theirs.

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
    device, processes = next(encoder.parameters()).device, current()

    def part(ids: list[int]) -> np.ndarray:
        with autocast(device, AUTOCAST_DTYPES[precision]):
            vectors = _own_share(encoder.pooled, catalogue, np.array(ids), token_budget, device)
        return np.empty((0, encoder.pooled_size), np.float32) if vectors is None else vectors.float().cpu().numpy()

    settings = {"weights": weights or encoder_digest(encoder), "precision": precision} if cache else {}
    mode = encoder.training
    encoder.eval()
    try:
        of_entry: Any = {"width": encoder.pooled_size, "settings": settings, "cache": cache, "dtype": dtype}
        made = processes.led(part, lambda ask: cached_item_vectors(_whole_of(ask, catalogue), catalogue, **of_entry))
        return made if processes.world_size == 1 else _known_to_all(made, catalogue, of_entry)
    finally:
        encoder.train(mode)


def _whole_of(ask: Any, catalogue: ItemCatalogue) -> Any:
    """(N,) item ids -> (N, width) vectors, of all processes' parts."""

    def encode(ids: np.ndarray) -> np.ndarray:
        return np.concatenate(ask(ids.tolist()))[_places(catalogue, ids)]

    return encode


def _own_share(
    encoder: Any, catalogue: ItemCatalogue, ids: np.ndarray, token_budget: int, device: torch.device
) -> Tensor | None:
    """Vectors of this process's share of some items, longest first; None where that is nothing, so that nobody asks for
    their size."""
    processes = current()
    own = share_of_chunks(catalogue.lookup(ids)[1], token_budget, processes.rank, processes.world_size)
    if len(own) == 0:
        return None
    tokens, lengths = (part.to(device) for part in catalogue.lookup(ids[own.numpy()]))
    return encode_items(encoder, tokens, lengths, token_budget=token_budget)


def _places(catalogue: ItemCatalogue, ids: np.ndarray) -> np.ndarray:
    """Where each of some items is in all shares, one after the other."""
    longest_first = torch.argsort(catalogue.lookup(ids)[1], descending=True, stable=True)
    return torch.argsort(longest_first).numpy()


def _known_to_all(made: np.ndarray | None, catalogue: ItemCatalogue, of_entry: dict[str, Any]) -> np.ndarray:
    """The vectors that the first process has made: from its cache, or sent."""
    processes = current()
    found = made if processes.is_first else kept_item_vectors(catalogue, **of_entry)
    if all(processes.gather(found is not None)):
        assert found is not None, "as all have said"
        return found
    sent = processes.first_array(made)
    return sent if found is None else found


def encode_by_all(encoder: ItemEncoder, catalogue: ItemCatalogue, *, token_budget: int) -> Tensor:
    """(n_items, D) vectors of all items, without gradients: each process computes a share, and all get the whole.

    Args:
        encoder, catalogue, token_budget: as for ``encode_catalogue``.
    """
    device, ids = next(encoder.parameters()).device, np.arange(1, catalogue.n_items)
    own = _own_share(encoder, catalogue, ids, token_budget, device)
    if current().world_size > 1:  # in a type that NumPy has, which holds the same numbers
        exact = [] if own is None else [own.to(torch.promote_types(own.dtype, torch.float32)).cpu().numpy()]
        parts = [part for theirs in current().gather_lists(exact) for part in theirs]
        own = torch.from_numpy(np.concatenate(parts)).to(device)
    assert own is not None, "a catalogue has items"
    vectors = own[torch.from_numpy(_places(catalogue, ids)).to(device)]
    return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])
