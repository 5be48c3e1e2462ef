"""Content vectors of LEARN (arXiv 2405.03988, section 3.1): of a language model as it is, of ids, or of nothing."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_hllm.data.cache import cache_folder, digest
from recbole_hllm.data.texts import ItemTexts
from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.model.item_texts import build_catalogue, read_texts
from recbole_hllm.model.item_vectors import encode_catalogue, encoder_digest
from recbole_hllm.model.language_models import attention, chunk_tokens
from recbole_hllm.nn.backbone import BackboneSpec, is_bidirectional, load_backbone, load_tokenizer
from recbole_hllm.nn.content_encoder import POOLINGS, ContentEncoder, sentence_encoder
from recbole_hllm.nn.item_encoder import StoredItemVectors

# Value of `content` that reads texts -> key that names its language model.
MODEL_KEYS = {"llm": "content_llm_dir", "bert": "content_bert_dir"}
CONTENTS = (*MODEL_KEYS, "id", "random")
DTYPES = {"float32": np.float32, "float16": np.float16}
_ID_STD = 0.02


class Content(nn.Module):
    """Item ids -> content vectors.

    Args:
        table: (...) ids -> (..., C) vectors, those of the padding item 0.
        width: C.
        normalised: bring vectors to length 1.
    """

    def __init__(self, table: nn.Module, width: int, normalised: bool):
        super().__init__()
        self.table, self.width, self.normalised = table, width, normalised

    def forward(self, ids: Tensor) -> Tensor:
        """(...) item ids -> (..., C) vectors; the padding item's is 0."""
        vectors = self.table(ids)
        return F.normalize(vectors, dim=-1) if self.normalised else vectors


def check_content_keys(config) -> None:
    """Raises ConfigError for values that are wrong whatever the data and the language model are."""
    for key, known in (
        ("content", CONTENTS),
        ("content_dtype", tuple(DTYPES)),
        ("content_pooling", (None, *POOLINGS)),
    ):
        if config[key] not in known:
            words = [word for word in known if word]
            hint = did_you_mean(str(config[key]), words)
            raise ConfigError(f"{key}: {config[key]!r} is not one of {', '.join(words)}{hint}")
    key = MODEL_KEYS.get(config["content"])
    if key and not config[key]:
        raise ConfigError(f"{key}: name the language model of content: {config['content']}")


def build_content(config, dataset, item_texts: ItemTexts | None = None) -> Content:
    """The content vectors that the key ``content`` asks for.

    Those of a language model are computed now, or read from the cache; it is let go before any training.

    Raises:
        ConfigError, DataError, ModelError: texts, language model and keys do not fit together.
    """
    kind, width = config["content"], config["content_dim"]
    if kind == "id":
        return Content(_id_table(dataset.item_num, width), width, normalised=False)
    if kind == "random":
        return Content(_random_table(config["seed"], dataset.item_num, width), width, normalised=True)
    table = _text_table(config, dataset, item_texts)
    return Content(table, table.vectors.shape[1], bool(config["content_normalised"]))


def _id_table(n_items, width) -> nn.Embedding:
    table = nn.Embedding(n_items, width, padding_idx=0)
    with torch.no_grad():
        table.weight[1:].normal_(std=_ID_STD)
    return table


def _random_table(seed, n_items, width) -> StoredItemVectors:
    """Vectors that say nothing but which item it is, and stay as they are."""
    vectors = np.random.default_rng(seed).standard_normal((n_items, width), np.float32)
    vectors[0] = 0
    return StoredItemVectors(vectors, nn.Identity(), digest("random", seed, n_items, width))


def _text_table(config, dataset, item_texts) -> StoredItemVectors:
    encoder, source = _encoder(config)
    if getattr(config, "weightless", False):  # a plan's model: nothing to compute them with
        return StoredItemVectors(np.zeros((0, encoder.out_features), np.float32), nn.Identity(), "00")
    catalogue = build_catalogue(config, item_texts or read_texts(config, dataset), source)
    encoder = encoder.to(config["device"])
    weights = encoder_digest(encoder)
    vectors = encode_catalogue(
        encoder,
        catalogue,
        precision=config["precision"],
        token_budget=chunk_tokens(config),
        cache=cache_folder(config["cache_dir"], config["data_path"]) if config["item_vector_cache"] else None,
        weights=weights,
        dtype=DTYPES[config["content_dtype"]],
    )
    return StoredItemVectors(vectors, nn.Identity(), weights)


def _encoder(config) -> tuple[ContentEncoder, str]:
    """The language model with its pooling, and whose tokenizer it reads with."""
    kind = config["content"]
    given = config[MODEL_KEYS[kind]]
    source, own_pooling = sentence_encoder(given)
    bare = getattr(config, "weightless", False)
    backbone = load_backbone(
        BackboneSpec(
            source,
            init="scratch" if bare else "pretrained",
            num_layers=config["content_layers"],
            layers_key="content_layers",
            attn_implementation=attention(config),
            trust_remote_code=config["trust_remote_code"],
        )
    )
    if is_bidirectional(backbone) != (kind == "bert"):
        type_ = backbone.config.model_type
        looks = "looks ahead" if is_bidirectional(backbone) else "is causal"
        raise ConfigError(
            f"{MODEL_KEYS[kind]}: {given}, of type {type_}, {looks}, which is no content: {kind}; name it in "
            f"{MODEL_KEYS['llm' if kind == 'bert' else 'bert']} and set content to match"
        )
    pooling, words = config["content_pooling"] or own_pooling or "mean", config["trust_remote_code"]
    if kind == "llm" and pooling == "cls":
        raise ConfigError(
            "content_pooling: cls: the first token of a causal language model sees nothing of the text; take mean, "
            "last or eos"
        )
    end_token = load_tokenizer(source, words).eos_token_id if pooling == "eos" else None
    if pooling == "eos" and end_token is None:
        raise ConfigError(f"content_pooling: eos: the tokenizer of {given} has no end token; take another")
    return ContentEncoder(backbone, pooling, end_token=end_token, max_text_length=config["MAX_TEXT_LENGTH"]), source
