"""What a language model that is not trained makes of all items' texts; computed once, so that it can be let go."""

from typing import Any

import numpy as np

from recbole_hllm.config.keys.baselines import TextKNNKeys
from recbole_hllm.config.keys.frozen_text import TextSASRecKeys
from recbole_hllm.config.keys.learn import LEARNKeys
from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.item_texts import build_catalogue, read_texts
from recbole_hllm.model.base.item_vectors import encode_catalogue, encoder_digest, vector_cache
from recbole_hllm.model.base.language_models import chunk_tokens
from recbole_hllm.model.base.llm_fit import check_words
from recbole_hllm.nn.backbone import load_tokenizer
from recbole_hllm.nn.item_encoder import ItemEncoder


def vectors_of_texts(
    settings: TextKNNKeys | TextSASRecKeys | LEARNKeys,
    encoder: ItemEncoder,
    source: str,
    dataset: Any,
    weights: Weights,
    texts: ItemTexts | None = None,
    dtype: type = np.float32,
) -> tuple[np.ndarray, str]:
    """Vectors of all items, before any projection: from the cache, or computed now.

    Args:
        settings: of the model.
        encoder: the language model with its pooling.
        source: where its tokenizer lies.
        dataset: the training part.
        weights: ``OUTLINE``: nothing is computed.
        texts: those of the data set where they are read already.
        dtype: what vectors are kept in, np.float32 or np.float16.

    Returns:
        (n_items, H), memory-mapped or not, row 0 zeros, or (0, H) float32; hexadecimal digest of all that decided them.

    Raises:
        ConfigError, DataError, ModelError: texts and language model are missing or do not fit together.
    """
    if weights is Weights.OUTLINE:  # nothing to compute them with
        return np.zeros((0, encoder.pooled_size), np.float32), "00"
    tokenizer = load_tokenizer(source, settings.trust_remote_code)
    catalogue = build_catalogue(settings, texts or read_texts(settings, dataset), tokenizer, source)
    check_words(encoder.backbone, catalogue.tokens, source)
    encoder = encoder.to(settings.device)
    digest = encoder_digest(encoder)
    vectors = encode_catalogue(
        encoder,
        catalogue,
        precision=settings.precision,
        token_budget=chunk_tokens(settings),
        cache=vector_cache(settings),
        weights=digest,
        dtype=dtype,
    )
    return vectors, digest
