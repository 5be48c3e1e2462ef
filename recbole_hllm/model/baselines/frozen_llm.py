"""The pretrained language model of the baselines that train nothing of it."""

from typing import Any

import numpy as np

from recbole_hllm.config.keys.baselines import PromptLLMKeys, TextKNNKeys
from recbole_hllm.config.keys.frozen_text import TextSASRecKeys
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.item_texts import build_catalogue, item_file, read_texts, text_columns
from recbole_hllm.model.base.item_vectors import encode_catalogue, encoder_digest, vector_cache
from recbole_hllm.model.base.language_models import attention, chunk_tokens, packed
from recbole_hllm.model.base.llm_fit import check_words
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer
from recbole_hllm.nn.item_encoder import ItemEncoder

_Keys = TextKNNKeys | TextSASRecKeys


def named_source(settings: _Keys | PromptLLMKeys, purpose: str) -> str:
    """Where it and its tokenizer lie.

    Args:
        purpose: what it is for, for the error.

    Raises:
        ConfigError: it has no name.
    """
    if not settings.item_pretrain_dir:
        raise ConfigError(f"item_pretrain_dir: name the {purpose}")
    return settings.item_pretrain_dir


def frozen_spec(settings: _Keys | PromptLLMKeys, source: str, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The language model, as its keys say."""
    return BackboneSpec(
        source,
        init="pretrained" if weights.are_read else "scratch",
        num_layers=settings.item_llm_layers,
        layers_key="item_llm_layers",
        attn_implementation=attention(settings),
        trust_remote_code=settings.trust_remote_code,
    )


def check_texts(settings: _Keys, source: str) -> None:
    """Looks for item texts and the tokenizer.

    Raises:
        ConfigError, DataError, ModelError: one of them is missing.
    """
    path = item_file(settings)
    if not path.exists():
        raise ConfigError(f"there is no {path} to read item texts from")
    text_columns(path, settings)
    load_tokenizer(source, settings.trust_remote_code)


def frozen_vectors(
    settings: _Keys, dataset: Any, source: str, weights: Weights = Weights.FRESH
) -> tuple[np.ndarray, str]:
    """What it makes of all items' texts: means over the last hidden states.

    Args:
        settings: of the model.
        dataset: the training part.
        source: where it lies.
        weights: ``OUTLINE``: nothing is computed.

    Returns:
        (n_items, H) float32, memory-mapped or not, row 0 zeros, or (0, H); hexadecimal digest of all that decided them.

    Raises:
        ConfigError, DataError, ModelError: texts and language model are missing or do not fit together.
    """
    outline = weights is Weights.OUTLINE
    tokenizer = load_tokenizer(source, settings.trust_remote_code)
    llm = load_backbone(frozen_spec(settings, source, weights if outline else Weights.FRESH))
    encoder = ItemEncoder(
        llm,
        item_emb_token_n=0,
        max_text_length=settings.MAX_TEXT_LENGTH,
        right_aligned_positions="positions" in referenced(settings.reference),
        packed=packed(settings, llm),
    )
    if outline:
        return np.zeros((0, encoder.pooled_size), np.float32), "00"
    catalogue = build_catalogue(settings, read_texts(settings, dataset), tokenizer, source)
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
    )
    return vectors, digest
