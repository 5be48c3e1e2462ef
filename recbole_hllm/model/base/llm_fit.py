"""Whether language models fit the keys of a run, by their configurations: before data are read or models trained."""

import numpy as np
import torch
from transformers import PreTrainedModel

from recbole_hllm.errors import ConfigError, ModelError, naming
from recbole_hllm.model.base.language_models import item_emb_token_n
from recbole_hllm.nn.backbone import BackboneSpec, skeleton_of
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.probe import check_causal, position_range
from recbole_hllm.nn.tuning import LoraSettings, tune
from recbole_hllm.nn.user_encoder import check_reads_items


def check_user_llm(
    config, spec: BackboneSpec, key: str, lora: LoraSettings | None, further: int = 0, other_length: str | None = None
) -> None:
    """For a language model that reads item vectors and predicts the next one.

    Args:
        key: that names it.
        lora: how it is tuned with LoRA; None: otherwise.
        further: number of vectors that are read after a history.
        other_length: key of another number of items that it reads at once.

    Raises:
        ConfigError: histories are longer than it can read.
        ModelError: it is bidirectional, or has no such layers as LoRA names.
    """
    skeleton = skeleton_of(spec)
    if skeleton is None:
        return
    with naming(key):
        check_reads_items(skeleton)
    check_history_length(config, position_range(skeleton)[1], further, "further vector", other_length)
    _check_lora(spec, lora)


def check_prompted_llm(config, spec: BackboneSpec, key: str, lora: LoraSettings | None, words: int) -> None:
    """For a language model that reads item vectors between words.

    Args:
        key: that names it.
        lora: as for ``check_user_llm``.
        words: how many of them are read with every history.

    Raises:
        ConfigError, ModelError: as ``check_user_llm``.
    """
    skeleton = skeleton_of(spec)
    if skeleton is None:
        return
    with naming(key):
        check_causal(skeleton, "read histories here")
    check_history_length(config, position_range(skeleton)[1], words, "words of the instruction")
    _check_lora(spec, lora)


def check_text_llm(
    config,
    spec: BackboneSpec,
    key: str,
    lora: LoraSettings | None = None,
    tokens: int | None = 0,
    length_key: str = "MAX_TEXT_LENGTH",
) -> None:
    """For a language model that reads item texts.

    Args:
        key: that names it.
        lora: as for ``check_user_llm``.
        tokens: how many are read after the text; None: as ``item_emb_token_n`` says.
        length_key: of the most tokens of a text.

    Raises:
        ConfigError: as ``item_emb_token_n``.
        ModelError: texts are longer than it can read, padding changes what it reads, or it has no such layers as LoRA
            names.
    """
    skeleton = skeleton_of(spec)
    if skeleton is None:
        return
    tokens = item_emb_token_n(config, skeleton) if tokens is None else tokens
    with naming(key), torch.device("meta"):
        ItemEncoder(skeleton, item_emb_token_n=tokens, max_text_length=config[length_key], length_key=length_key)
    _check_lora(spec, lora)


def check_history_length(config, places: int | None, further: int, what: str, other_length: str | None = None) -> None:
    """Raises ConfigError where the longest history and ``further`` vectors are more than a language model reads."""
    keys = ["MAX_ITEM_LIST_LENGTH", "MAX_ITEM_LIST_LENGTH_TEST", *filter(None, [other_length])]
    key = max(keys, key=lambda name: config[name] or 0)
    if places is not None and config[key] + further > places:
        read = f"{config[key]} items and {further} {what}" if further else f"{config[key]} items"
        raise ConfigError(
            f"{key}: {read} do not fit into the {places} positions of the language model; give at most "
            f"{places - further}"
        )


def check_words(llm: PreTrainedModel, tokens: np.ndarray, source: str) -> None:
    """Whether a language model knows all the words that its tokenizer makes of texts.

    Args:
        tokens: int (T,) ids of every token that is read.
        source: where the tokenizer lies.

    Raises:
        ModelError: it has no embedding for one of them.
    """
    known = len(llm.get_input_embeddings().weight)
    if (last := int(tokens.max(initial=0))) >= known:
        raise ModelError(
            f"the tokenizer of {source} has more words than the language model: token {last} was read, and there are "
            f"embeddings of {known} words (vocab_size); give a folder whose weights and tokenizer belong together"
        )


def _check_lora(spec, lora: LoraSettings | None) -> None:
    if lora is not None:  # of all layers: they differ in some models, and one of them can be named
        skeleton = skeleton_of(spec, whole=True)
        with torch.device("meta"):
            tune(skeleton, "lora", lora)
