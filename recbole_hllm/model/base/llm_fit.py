"""Whether language models fit the keys of a run, by their configurations: before data are read or models trained."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from transformers import PreTrainedModel

from recbole_hllm.config.keys.next_item import HistoryKeys
from recbole_hllm.errors import ConfigError, ModelError, naming
from recbole_hllm.nn.backbone import BackboneSpec, skeleton_of
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.probe import check_causal, position_range
from recbole_hllm.nn.tuning import LoraSettings, tune
from recbole_hllm.nn.user_encoder import check_reads_items


def history_lengths(settings: HistoryKeys) -> dict[str, int | None]:
    """The keys that say how many items of a history are read at once, and their values."""
    return {
        "MAX_ITEM_LIST_LENGTH": settings.MAX_ITEM_LIST_LENGTH,
        "MAX_ITEM_LIST_LENGTH_TEST": settings.MAX_ITEM_LIST_LENGTH_TEST,
    }


def check_named(source: str | None, sizes: Mapping[str, object] | None) -> None:
    """Raises ConfigError where neither ``user_pretrain_dir`` nor ``user_llm_config`` says what is to be built.

    Args:
        source: folder or hub id of the language model; None: there is none.
        sizes: the value of ``user_llm_config``.
    """
    if not source and not (sizes or {}).get("model_type"):
        raise ConfigError(
            f"user_llm_config: {sizes!r} lacks a model_type, say llama; leave the key out for its default"
        )


def check_user_llm(
    spec: BackboneSpec, key: str, lora: LoraSettings | None, lengths: Mapping[str, int | None], further: int = 0
) -> None:
    """For a language model that reads item vectors and predicts the next one.

    Args:
        key: that names it.
        lora: how it is tuned with LoRA; None: otherwise.
        lengths: key -> number of items that it reads at once, such as ``history_lengths``.
        further: number of vectors that are read after a history.

    Raises:
        ConfigError: histories are longer than it can read.
        ModelError: it is bidirectional, or has no such layers as LoRA names.
    """
    skeleton = skeleton_of(spec)
    if skeleton is None:
        return
    with naming(key):
        check_reads_items(skeleton)
    check_history_length(lengths, position_range(skeleton)[1], further, "further vector")
    _check_lora(spec, lora)


def check_prompted_llm(
    spec: BackboneSpec, key: str, lora: LoraSettings | None, lengths: Mapping[str, int | None], words: int
) -> None:
    """For a language model that reads item vectors between words.

    Args:
        key: that names it.
        lora, lengths: as for ``check_user_llm``.
        words: how many of them are read with every history.

    Raises:
        ConfigError, ModelError: as ``check_user_llm``.
    """
    skeleton = skeleton_of(spec)
    if skeleton is None:
        return
    with naming(key):
        check_causal(skeleton, "read histories here")
    check_history_length(lengths, position_range(skeleton)[1], words, "words of the instruction")
    _check_lora(spec, lora)


def check_text_llm(
    spec: BackboneSpec,
    key: str,
    length: int,
    lora: LoraSettings | None = None,
    tokens: int | Callable[[PreTrainedModel], int] = 0,
    length_key: str = "MAX_TEXT_LENGTH",
) -> None:
    """For a language model that reads item texts.

    Args:
        key: that names it.
        length: most tokens of a text, the value of ``length_key``.
        lora: as for ``check_user_llm``.
        tokens: how many are read after the text, or how many are by such a model.

    Raises:
        ModelError: texts are longer than it can read, padding changes what it reads, or it has no such layers as LoRA
            names.
    """
    skeleton = skeleton_of(spec)
    if skeleton is None:
        return
    tokens = tokens(skeleton) if callable(tokens) else tokens
    with naming(key), torch.device("meta"):
        ItemEncoder(skeleton, item_emb_token_n=tokens, max_text_length=length, length_key=length_key)
    _check_lora(spec, lora)


def check_history_length(lengths: Mapping[str, int | None], places: int | None, further: int, what: str) -> None:
    """Raises ConfigError where the longest history and ``further`` vectors are more than a language model reads."""
    key = max(lengths, key=lambda name: lengths[name] or 0)
    longest = lengths[key] or 0
    if places is not None and longest + further > places:
        read = f"{longest} items and {further} {what}" if further else f"{longest} items"
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
    words = llm.get_input_embeddings().weight
    assert isinstance(words, torch.Tensor), "a weight"
    known = len(words)
    if (last := int(tokens.max(initial=0))) >= known:
        raise ModelError(
            f"the tokenizer of {source} has more words than the language model: token {last} was read, and there are "
            f"embeddings of {known} words (vocab_size); give a folder whose weights and tokenizer belong together"
        )


def _check_lora(spec: BackboneSpec, lora: LoraSettings | None) -> None:
    if lora is not None:  # of all layers: they differ in some models, and one of them can be named
        skeleton = skeleton_of(spec, whole=True)
        assert skeleton is not None, "of the same source as before"
        with torch.device("meta"):
            tune(skeleton, "lora", lora)
