"""Vectors of a whole catalogue on disk, computed once for the same weights; only new or changed items again."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.data.texts.tokens import HASH_BYTES, joined_hashes, rows_of
from recbole_hllm.storage.cache import digest, newest_arrays, read_arrays
from recbole_hllm.storage.shards import made_in_shards

logger = logging.getLogger(__name__)

FORMAT = 2  # raise it when the arrays or their meaning change
BLOCK = 16_384  # items encoded at a time, and kept


def weights_digest(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Hash (24 hexadecimal characters) of named tensors, bit by bit, wherever they lie; their order counts.

    Args:
        weights: names and tensors, as of ``state_dict().items()``; taken one at a time.
    """
    return digest(*(digest(name, str(weight.dtype), list(weight.shape), _bytes(weight)) for name, weight in weights))


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    """NumPy has no bfloat16, so its bytes as they are."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def cached_item_vectors(
    encode: Callable[[np.ndarray], np.ndarray],
    catalogue: ItemCatalogue,
    *,
    width: int,
    settings: dict[str, Any],
    cache: Path | None,
    dtype: type = np.float32,
) -> np.ndarray:
    """Every item's vector, from the disk as far as they lie there.

    Entries are named by ``settings`` and by all items' tokens. Where there is none for this catalogue, the newest one
    of the same settings gives the rows of the items whose tokens are equal. An entry that is damaged or was made for
    something else is made again. Vectors are kept block by block, so that an interrupted call is gone on with by the
    next one.

    Args:
        encode: (N,) item ids -> (N, width) vectors; called for a block of items that are new or changed at a time.
        catalogue: token ids of every item.
        width: of a vector.
        settings: JSON-able; everything beside the tokens that decides the vectors: weights, pooling, precision.
        cache: folder of the entries; None writes nothing and encodes every item.
        dtype: what they are kept in, np.float32 or np.float16, half as large and with three digits.

    Returns:
        (n_items, width), memory-mapped and read-only where there is a cache; the padding item's is 0.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    tokens, meta = _token_digests(catalogue), _meta(width, settings, dtype)
    stem = f"vectors-{digest(meta)}"
    entry = None if cache is None else Path(cache) / f"{stem}-{digest(tokens)}"
    work = _Encoding(encode, tokens, entry, stem, meta, np.zeros((0, width), dtype))
    arrays = made_in_shards(
        entry,
        meta,
        len(tokens),
        BLOCK,
        work.shard,
        whole=lambda arrays: _whole(arrays, width) and np.array_equal(arrays["tokens"], tokens),
        what="encode items",
        row_bytes=np.dtype(dtype).itemsize * width,
    )
    if entry is not None and not work.began:
        logger.info("item vectors: all %d from %s", len(tokens) - 1, entry)
    return arrays["vectors"]


def kept_item_vectors(
    catalogue: ItemCatalogue, *, width: int, settings: dict[str, Any], cache: Path | None, dtype: type = np.float32
) -> np.ndarray | None:
    """What ``cached_item_vectors`` has kept of the same; None where there is nothing."""
    if cache is None:
        return None
    tokens, meta = _token_digests(catalogue), _meta(width, settings, dtype)
    arrays = read_arrays(Path(cache) / f"vectors-{digest(meta)}-{digest(tokens)}", meta)
    return arrays["vectors"] if arrays is not None and _whole(arrays, width) else None


def _meta(width: int, settings: dict[str, Any], dtype: type) -> dict[str, Any]:
    kept_in = {} if dtype is np.float32 else {"dtype": np.dtype(dtype).name}
    return {"format": FORMAT, "width": width, **kept_in, **settings}


def _token_digests(catalogue: ItemCatalogue) -> np.ndarray:
    """uint8 (n_items, 16): a hash of each item's token ids."""
    tokens, offsets = np.asarray(catalogue.tokens), catalogue.offsets.tolist()
    return joined_hashes(
        blake2b(tokens[first:last].tobytes(), digest_size=HASH_BYTES).digest()
        for first, last in zip(offsets, offsets[1:], strict=False)
    )


def _whole(arrays: Mapping[str, np.ndarray], width: int) -> bool:
    return arrays.keys() == {"vectors", "tokens"} and arrays["vectors"].shape == (len(arrays["tokens"]), width)


class _Encoding:
    """The arrays of an entry, a shard at a time: ``vectors`` and the hashes ``tokens``.

    Args:
        encode: as for ``cached_item_vectors``.
        tokens: uint8 (n_items, 16), hashes of the items' tokens.
        entry: that they are for, None for none; those of its folder whose names begin with ``stem`` are of the same
            settings, which ``meta`` tells.
        empty: (0, width) in the type of the vectors.
    """

    def __init__(
        self,
        encode: Callable[[np.ndarray], np.ndarray],
        tokens: np.ndarray,
        entry: Path | None,
        stem: str,
        meta: dict[str, Any],
        empty: np.ndarray,
    ) -> None:
        self.encode, self.tokens, self.empty = encode, tokens, empty
        self.entry, self.stem, self.meta = entry, stem, meta
        self.began = False

    @cached_property
    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of an earlier entry, and of each item the row there, -1 where it has none."""
        self.began = True
        width = self.empty.shape[1]
        found = self.entry and newest_arrays(
            self.entry.parent, self.stem, self.meta, lambda arrays: _whole(arrays, width)
        )
        # Row 0 is the padding item's, and stands for no text.
        rows = rows_of(self.tokens, found["tokens"][1:]) if found else np.full(len(self.tokens), -1)
        rows[0] = -1
        if self.entry:
            missing = int((rows[1:] < 0).sum())
            logger.info("item vectors: %d of %d items are encoded, for %s", missing, len(rows) - 1, self.entry)
        return (found["vectors"][1:] if found else self.empty), rows

    def shard(self, begin: int, end: int) -> dict[str, np.ndarray]:
        """The arrays of some items; the padding item's vector is 0."""
        earlier, rows = self.known[0], self.known[1][begin:end]
        vectors: np.ndarray = np.zeros((len(rows), self.empty.shape[1]), self.empty.dtype)
        there = rows >= 0
        if there.any():
            vectors[there] = earlier[rows[there]]
        new = begin + np.flatnonzero(~there)
        new = new[new > 0]
        if len(new):
            vectors[new - begin] = self.encode(new)
        return {"vectors": vectors, "tokens": self.tokens[begin:end]}
