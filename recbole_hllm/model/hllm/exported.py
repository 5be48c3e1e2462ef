"""What of an HLLM an export has: its User LLM, its Item LLM with what comes after it, and what trainings start from."""

from typing import Any

from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.item_texts import template_of
from recbole_hllm.model.base.item_vectors import encoder_digest
from recbole_hllm.model.base.servable import TrainingPart
from recbole_hllm.model.hllm.language_models import HLLM_KIND, WORDS, build_item_encoder, item_tokenizer_source
from recbole_hllm.model.hllm.pretrained import METHOD, OF_LLMS, OF_TRAINING, read_pretrained
from recbole_hllm.nn.backbone import load_tokenizer
from recbole_hllm.nn.item_encoder import ItemEncoder, StoredItemVectors
from recbole_hllm.nn.saved import on_cpu
from recbole_hllm.nn.user_models.language import UserLLM
from recbole_hllm.nn.words import word_embeddings
from recbole_hllm.serving.sentence_folder import TextSide


def user_model_of(model: Any) -> UserLLM:
    """The User LLM, with what is added to its inputs.

    Raises:
        ModelError: it reads actions, which a request has none of.
    """
    features, settings = model.input_features, model.settings
    if features.action is not None:
        raise ModelError("action_field: a request says nothing of actions; train without it to export")
    n_items = 0 if features.item is None else features.item.num_embeddings
    user_model = UserLLM(
        model.user_encoder,
        model.user_encoder.hidden_size,
        n_items=n_items,
        time_num=settings.time_num,
        time_width=settings.time_width,
        time_of=settings.time_of,
    )
    user_model.input_features = features
    return user_model


def text_side_of(model: Any) -> TextSide:
    """The Item LLM, with whitening and head.

    Raises:
        ModelError: a frozen Item LLM, which is read again for this, has changed on the disk.
    """
    settings = model.settings
    tokenizer = load_tokenizer(item_tokenizer_source(settings), settings.trust_remote_code)
    template = template_of(settings, model.text_keys)
    return TextSide(_item_encoder_of(model), tokenizer, template, reference=referenced(settings.reference))


def training_part_of(model: Any, encoder: ItemEncoder) -> TrainingPart:
    """[ITEM], whitening, head, id part, temperature, and what is added to inputs.

    Args:
        encoder: the Item LLM, which a model that has it frozen has let go.
    """
    settings = model.settings
    apart = (*OF_LLMS, *OF_TRAINING, "item_encoder.source")
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith(apart)}
    if encoder.item_emb_tokens is not None:
        weights["item_encoder.item_emb_tokens"] = encoder.item_emb_tokens
    facts = {"ids": model.ids_digest, WORDS: str(len(word_embeddings(encoder.backbone).weight))}
    if settings.item_whitening:
        facts[METHOD] = settings.item_whitening
    weights = {name: on_cpu(weight) for name, weight in weights.items()}
    return TrainingPart(HLLM_KIND, model.user_encoder.backbone, weights, facts)


def _item_encoder_of(model: Any) -> ItemEncoder:
    """The model's own; a frozen one, which it let go, is read again."""
    stored = model.item_encoder
    if not isinstance(stored, StoredItemVectors):
        return stored
    encoder = build_item_encoder(model.settings, model.user_encoder.hidden_size, Weights.FRESH)
    if pretrained := model.settings.pretrained_hllm:
        own = {name: weight for name, weight in read_pretrained(pretrained).items() if name.startswith("item_")}
        own = {name.removeprefix("item_encoder."): weight for name, weight in own.items()}
        encoder.load_state_dict({**encoder.state_dict(), **own})
    if encoder_digest(encoder) != stored.source_digest:
        raise ModelError("export: the frozen Item LLM has changed on the disk since this model was built")
    encoder.whitening, encoder.projection = stored.whitening, stored.projection
    return encoder
