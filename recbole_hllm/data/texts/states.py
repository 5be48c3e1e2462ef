"""States of every token of a catalogue's texts, computed once and memory-mapped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.storage.cache import digest
from recbole_hllm.storage.shards import made_in_shards

FORMAT = 1  # raise it when the array or its meaning changes
SHARD = 4096  # items whose states are kept at a time


def cached_token_states(
    encode: Callable[[np.ndarray], np.ndarray],
    catalogue: ItemCatalogue,
    *,
    width: int,
    settings: dict[str, Any],
    cache: Path | None,
    dtype: type = np.float32,
) -> np.ndarray:
    """The state of each token of the catalogue, from the disk where it lies there.

    Entries are named by ``settings`` and by all tokens. They are kept shard by shard, so that an interrupted call is
    gone on with by the next one.

    Args:
        encode: (N,) item ids -> (T, width) states of their tokens, one item after the other.
        catalogue: token ids of every item.
        width: of a state.
        settings: JSON-able; everything beside the tokens that decides the states: weights and precision.
        cache: folder of the entries; None keeps them in memory.
        dtype: what they are kept in, np.float32 or np.float16.

    Returns:
        (T, width) in the places of ``catalogue.tokens``, memory-mapped and read-only where there is a cache.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    tokens, offsets = np.asarray(catalogue.tokens), np.asarray(catalogue.offsets)
    meta = {"format": FORMAT, "width": width, "dtype": np.dtype(dtype).name, **settings}
    entry = None if cache is None else Path(cache) / f"states-{digest(meta, tokens, offsets)}"

    def shard(begin: int, end: int) -> dict[str, np.ndarray]:
        if offsets[begin] == offsets[end]:
            return {"states": np.zeros((0, width), dtype)}
        most = np.finfo(dtype).max
        return {"states": encode(np.arange(begin, end)).clip(-most, most).astype(dtype)}

    arrays = made_in_shards(
        entry,
        meta,
        catalogue.n_items,
        SHARD,
        shard,
        whole=lambda found: found.keys() == {"states"} and found["states"].shape == (len(tokens), width),
        what="compute states of the Item LLM's lower layers",
        row_bytes=int(np.dtype(dtype).itemsize * width * max(len(tokens) // max(catalogue.n_items, 1), 1)),
    )
    return arrays["states"]
