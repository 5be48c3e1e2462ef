"""What of a LEARN an export has: its towers with the vectors of content, and the language model of these."""

from typing import Any

import torch

from recbole_hllm.config.keys.learn import LEARNKeys
from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.item_texts import item_file, template_of, text_columns
from recbole_hllm.model.base.item_vectors import encoder_digest
from recbole_hllm.model.base.servable import with_weights
from recbole_hllm.model.learn.content import build_encoder, content_source
from recbole_hllm.nn.backbone import load_tokenizer
from recbole_hllm.nn.item_encoder import StoredItemVectors
from recbole_hllm.nn.user_models.preference import PreferenceUser
from recbole_hllm.serving.sentence_folder import TextSide
from recbole_hllm.serving.served import ServedVectors


def reader_sizes(settings: LEARNKeys) -> dict[str, Any]:
    """Sizes of a tower's `CausalTransformer`."""
    longest = max(settings.MAX_ITEM_LIST_LENGTH, settings.target_length)
    return {
        "hidden_size": settings.hidden_size,
        "n_layers": settings.n_layers,
        "n_heads": settings.n_heads,
        "inner_size": settings.inner_size,
        "n_positions": longest if settings.position_embedding else 0,
    }


def served_of(model: Any) -> ServedVectors:
    """The towers, and vectors of content that they read.

    Raises:
        ModelError: a language model is their preference module.
    """
    settings = model.settings
    if settings.preference == "llm":
        raise ModelError("preference: llm: a LEARN whose towers are language models is not exported; take transformer")
    tower = "none" if model.targets_read == "content" else "own" if model.own_item_tower else "shared"
    sizes = model.content.width, model.user_tower.online_proj.out_features
    user_model = PreferenceUser(*sizes, tower, reader_sizes(settings))
    every = torch.arange(model.n_items, device=model.logit_scale.device)
    return ServedVectors(
        with_weights(user_model, model).to(every.device),
        model.item_vectors(),
        model.content(every).float(),
        cosine=True,
        scale=model.score_scale(),
        length=settings.MAX_ITEM_LIST_LENGTH,
    )


def text_side_of(model: Any) -> TextSide | None:
    """The language model of the content, which is read again; None: content comes from ids.

    Raises:
        ModelError: it has changed on the disk.
    """
    settings, table = model.settings, model.content.table
    if content_source(settings) is None:
        return None
    assert isinstance(table, StoredItemVectors), "of a language model"
    encoder, source = build_encoder(settings, Weights.FRESH)
    if encoder_digest(encoder) != table.source_digest:
        raise ModelError("export: the language model of the content has changed on the disk since this run")
    columns = model.text_keys or text_columns(item_file(settings), settings)
    template = template_of(settings, (columns,) if isinstance(columns, str) else tuple(columns))
    tokenizer = load_tokenizer(source, settings.trust_remote_code)
    return TextSide(encoder, tokenizer, template, normalised=settings.content_normalised)
