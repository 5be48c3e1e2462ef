"""Writes how items are encoded as a sentence-transformers folder, which that library reads without this package.

Transformer (the language model and its tokenizer, at the top), Pooling, a Dense layer for whitening and for each layer
of the head, and Normalize. A learned [ITEM] vector is the row of a token that the tokenizer puts after each text.
``tokenizer/`` has the language model's own tokenizer, to train on with.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.errors import ModelError
from recbole_hllm.storage.files import write_json

if TYPE_CHECKING:  # transformers takes seconds to import, and who recommends need not write
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

OWN_TOKENIZER = "tokenizer"
_ITEM = "[ITEM]"
_MODULES = "sentence_transformers.models"
_LINEAR, _GELU = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.GELU"
# Pooling of an encoder -> that of the library; [ITEM] and an end token are the last one.
_POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken", "eos": "lasttoken", "[ITEM]": "lasttoken"}
_ALL_POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
# Texts that are tried to see what a tokenizer puts around one.
_PROBES = ("a", "1", "the")


@dataclass(frozen=True)
class TextSide:
    """How the vectors of items come from texts.

    Attributes:
        encoder: the language model with pooling, whitening and head.
        tokenizer: of its texts.
        template: makes a text of an item's fields.
        normalised: whether vectors are brought to length 1 at the end.
        reference: behaviours of the official HLLM code that texts were read with, see ``ItemCatalogue.build``.
    """

    encoder: Any
    tokenizer: "PreTrainedTokenizerBase"
    template: TextTemplate
    normalised: bool = False
    reference: frozenset[str] = field(default_factory=frozenset)


def write_sentence_folder(side: TextSide, folder: Path) -> None:
    """Writes the folder.

    Args:
        side: what is written; LoRA is merged into the weights.
        folder: a new one.

    Raises:
        ModelError: the library reads texts in no way that gives these vectors.
    """
    from recbole_hllm.nn.saved import save_llm, save_with_word

    encoder, backend = side.encoder, _copy_of(side.tokenizer)
    before, after = _around(backend)
    _check(side, after)
    folder.mkdir(parents=True)
    if encoder.item_emb_tokens is None:
        save_llm(encoder.backbone, folder)
    else:
        number = _append_item_token(backend, before, after)
        save_with_word(encoder.backbone, folder, number, encoder.item_emb_tokens[0, 0])
    longest = encoder.max_text_length + (encoder.item_emb_tokens is not None)
    _tokenizer(side, backend, longest).save_pretrained(folder)
    side.tokenizer.save_pretrained(folder / OWN_TOKENIZER)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    settings: dict[str, Any] = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", settings)
    _write_modules(side, folder)


# ---- the tokenizer ----


def _copy_of(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _append_item_token(backend: "Tokenizer", before: list[int], after: list[int]) -> int:
    """The number of a new token, which the tokenizer puts after each text and what else it puts there.

    Args:
        before, after: what it puts around a text.
    """
    from tokenizers import AddedToken, processors

    name = _ITEM
    while backend.token_to_id(name) is not None:
        name = f"[{name}]"
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False)])
    number = backend.token_to_id(name)
    assert number is not None, "just added"
    parts = {"before": before, "after": [*after, number]}
    backend.post_processor = processors.TemplateProcessing(
        single="before $A after" if before else "$A after",
        special_tokens=[
            {"id": place, "ids": ids, "tokens": [backend.id_to_token(token) for token in ids]}
            for place, ids in parts.items()
            if ids
        ],
    )
    return number


def _around(backend: "Tokenizer") -> tuple[list[int], list[int]]:
    """Tokens that a tokenizer puts before and after a text.

    Raises:
        ModelError: it changes texts otherwise.
    """
    for probe in _PROBES:
        own = backend.encode(probe, add_special_tokens=False).ids
        whole = backend.encode(probe).ids
        for begin in range(len(whole) - len(own) + 1) if own else ():
            if whole[begin : begin + len(own)] == own:
                return whole[:begin], whole[begin + len(own) :]
    raise ModelError("export: this tokenizer does more with a text than to put tokens around it; take another Item LLM")


def _check(side: TextSide, after: list[int]) -> None:
    from recbole_hllm.nn.probe import position_range

    if side.encoder.right_aligned_positions and position_range(side.encoder.backbone)[1] is not None:
        raise ModelError(
            "export: reference: positions counts the positions of a text from its end, which sentence-transformers "
            "cannot; train without it"
        )
    if "truncation" in side.reference and after:
        raise ModelError(
            "export: reference: truncation cuts off what the tokenizer puts after a long text, which "
            "sentence-transformers cannot; train without it"
        )


def _tokenizer(side: TextSide, backend: "Tokenizer", longest: int) -> "PreTrainedTokenizerBase":
    """As any program loads it, with the options that decide what is read."""
    from transformers import PreTrainedTokenizerFast

    theirs = side.tokenizer
    names = {name: token for name, token in theirs.special_tokens_map.items() if isinstance(token, str)}
    # Padding is hidden from the model, so that any token can stand there.
    names.setdefault("pad_token", names.get("eos_token") or names.get("unk_token") or str(backend.id_to_token(0)))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=longest,
        padding_side="right",
        truncation_side="right",
        split_special_tokens="special_tokens" not in side.reference,
        model_input_names=theirs.model_input_names,
        **names,
    )


# ---- what comes after the language model ----


def _write_modules(side: TextSide, folder: Path) -> None:
    """Pooling, Dense layers and Normalize, and the list of all modules."""
    encoder, kinds = side.encoder, ["Transformer", "Pooling"]
    pooling = {f"pooling_mode_{name}": name == _POOLINGS[encoder.pooling] for name in _ALL_POOLINGS}
    _write_config(folder / "1_Pooling", {"word_embedding_dimension": encoder.pooled_size, **pooling})
    for weight, bias, activation in _layers(encoder):
        _write_dense(folder / f"{len(kinds)}_Dense", weight, bias, activation)
        kinds.append("Dense")
    if side.normalised:
        (folder / f"{len(kinds)}_Normalize").mkdir()
        kinds.append("Normalize")
    paths = ["", *(f"{place}_{kind}" for place, kind in enumerate(kinds) if place)]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"{_MODULES}.{kind}"}
        for place, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    write_json(folder / "modules.json", modules)


def _layers(encoder: Any) -> list[tuple[Tensor, Tensor, str]]:
    """Weight, bias and activation of whitening and of the head's layers."""
    layers = []
    if (whitening := encoder.whitening) is not None:  # (x - mean) @ matrix
        bias = -(whitening.mean.double() @ whitening.matrix.double())
        layers.append((whitening.matrix.T, bias.float(), _LINEAR))
    head = list(encoder.projection) if isinstance(encoder.projection, nn.Sequential) else [encoder.projection]
    for place, layer in enumerate(head):
        if isinstance(layer, nn.Linear):
            last = place + 1 == len(head)
            layers.append((layer.weight, layer.bias, _LINEAR if last else _GELU))
    return layers


def _write_dense(folder: Path, weight: Tensor, bias: Tensor, activation: str) -> None:
    sizes = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": True}
    _write_config(folder, {**sizes, "activation_function": activation})
    weights = {"linear.weight": weight, "linear.bias": bias}
    save_file(
        {name: part.detach().cpu().to(torch.float32).contiguous() for name, part in weights.items()},
        folder / "model.safetensors",
    )


def _write_config(folder: Path, settings: dict[str, Any]) -> None:
    folder.mkdir()
    write_json(folder / "config.json", settings)
