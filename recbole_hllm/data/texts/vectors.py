"""Vectors of a whole catalogue on disk, computed once for the same weights; only new or changed items again."""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.storage.cache import check_room, digest, read_arrays, write_arrays

logger = logging.getLogger(__name__)

FORMAT = 2  # raise it when the arrays or their meaning change
BLOCK = 16_384  # items encoded at a time
PROGRESS_FROM = 50_000  # items; a bar for less would be in the way
_DIGEST_BYTES = 16


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
    something else is made again.

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
    tokens = _token_digests(catalogue)
    if cache is None:
        return _encode_missing(encode, np.zeros((len(tokens), width), dtype), np.arange(1, len(tokens)))
    kept_in = {} if dtype is np.float32 else {"dtype": np.dtype(dtype).name}
    meta = {"format": FORMAT, "width": width, **kept_in, **settings}
    stem = f"vectors-{digest(meta)}"
    entry = Path(cache) / f"{stem}-{digest(tokens)}"
    found = _read(entry, meta)
    if found and np.array_equal(found["tokens"], tokens):
        logger.info("item vectors: all %d from %s", len(tokens) - 1, entry)
        return found["vectors"]
    found = found or _newest(Path(cache), stem, meta)
    check_room(Path(cache), np.dtype(dtype).itemsize * len(tokens) * width)
    vectors, missing = _known_rows(found, tokens, width, dtype)
    logger.info("item vectors: %d of %d items are encoded, for %s", len(missing), len(tokens) - 1, entry)
    vectors = _encode_missing(encode, vectors, missing)
    shutil.rmtree(entry, ignore_errors=True)  # what is there is not what its name says
    write_arrays(entry, {"vectors": vectors, "tokens": tokens}, meta)
    return (_read(entry, meta) or {"vectors": vectors})["vectors"]


def _token_digests(catalogue: ItemCatalogue) -> np.ndarray:
    """uint8 (n_items, 16): a hash of each item's token ids."""
    tokens, offsets = np.asarray(catalogue.tokens), catalogue.offsets.tolist()
    hashes = (
        blake2b(tokens[first:last].tobytes(), digest_size=_DIGEST_BYTES).digest()
        for first, last in zip(offsets, offsets[1:], strict=False)
    )
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, _DIGEST_BYTES)


def _read(entry: Path, meta: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """An entry that holds what it should; None for any other."""
    arrays = read_arrays(entry, meta)
    if arrays is None:
        return None
    whole = arrays.keys() == {"vectors", "tokens"}
    if whole and arrays["vectors"].shape == (len(arrays["tokens"]), meta["width"]):
        return arrays
    logger.warning("%s: the cache is incomplete and is made again", entry)
    return None


def _newest(cache: Path, stem: str, meta: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """The newest sound entry of the same settings."""
    files = [file for file in cache.glob(f"{stem}-*/meta.json") if file.is_file()]
    newest_first = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
    return next((arrays for file in newest_first if (arrays := _read(file.parent, meta))), None)


def _known_rows(
    found: Mapping[str, np.ndarray] | None, tokens: np.ndarray, width: int, dtype: type
) -> tuple[np.ndarray, np.ndarray]:
    """(n_items, width) vectors with the rows that an entry knows, and the ids of the items it does not."""
    vectors: np.ndarray = np.zeros((len(tokens), width), dtype)
    row_of = {} if found is None else {hashed.tobytes(): row for row, hashed in enumerate(found["tokens"]) if row}
    rows = np.array([row_of.get(hashed.tobytes(), 0) for hashed in tokens])
    rows[0] = 0
    known = np.flatnonzero(rows)
    if found is not None and len(known):
        vectors[known] = found["vectors"][rows[known]]
    return vectors, 1 + np.flatnonzero(rows[1:] == 0)


def _encode_missing(encode: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray, missing: np.ndarray) -> np.ndarray:
    with tqdm(total=len(missing), desc="encode items", unit="item", disable=len(missing) <= PROGRESS_FROM) as bar:
        for start in range(0, len(missing), BLOCK):
            ids = missing[start : start + BLOCK]
            vectors[ids] = encode(ids)
            bar.update(len(ids))
    return vectors
