"""Content encoder (LEARN, arXiv 2405.03988, section 3.1): a language model as it is reads item texts."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import PreTrainedModel

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import SOURCE_FORMS, resolve_source
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.words import word_embeddings

_OF_SENTENCES = "config_sentence_transformers.json"
POOLINGS = ("mean", "cls", "eos", "last")


class ContentEncoder(ItemEncoder):
    """Encodes item texts with a language model of which nothing is trained.

    Args:
        backbone: a language model without head.
        pooling: ``mean`` over the text's tokens; ``cls``, its first token, which tokenizers of BERT type put there;
            ``last``, its last token; or ``eos``, an end token after it.
        end_token: id of the end token, for ``eos``.
        max_text_length: longest text in tokens.
        packed: as an `ItemEncoder`'s.

    Raises:
        ModelError: another pooling, ``eos`` without an end token, or a position table that is too short.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        pooling: str,
        *,
        end_token: int | None,
        max_text_length: int,
        packed: bool = False,
    ):
        if pooling not in POOLINGS:
            raise ModelError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
        if pooling == "eos" and end_token is None:
            raise ModelError("pooling eos: the tokenizer has no end token; take mean, cls or last")
        item_tokens = int(pooling == "eos")
        super().__init__(backbone, item_emb_token_n=item_tokens, max_text_length=max_text_length, packed=packed)
        self._pooling = pooling
        if self.item_emb_tokens is not None:  # the end token stands where [ITEM] does
            words = word_embeddings(backbone)
            with torch.no_grad():  # not a row of its weight: some language models scale what they look up
                self.item_emb_tokens.copy_(words(torch.tensor([end_token], device=words.weight.device)))
        self.requires_grad_(False)

    @property
    def pooling(self) -> str:
        """How the last hidden states become one vector."""
        return self._pooling

    def _pool(self, hidden: Tensor, is_text: Tensor, lengths: Tensor) -> Tensor:
        if self._pooling == "cls":
            return hidden[:, 0]
        if self._pooling == "last":
            return hidden[torch.arange(len(lengths), device=hidden.device), (lengths - 1).clamp(min=0)]
        return super()._pool(hidden, is_text, lengths)


def sentence_encoder(source: str) -> tuple[str, str | None]:
    """What a sentence-transformers folder consists of.

    Args:
        source: as for `load_backbone`.

    Returns:
        the source of its language model, and its pooling; (source, None) for any other source.

    Raises:
        ModelError: it has parts besides a language model, a pooling and a normalisation, or pools in a way of its own.
    """
    place, gguf_file = resolve_source(source)
    if gguf_file:
        return source, None
    on_hub = not Path(place).is_dir()
    folder = _descriptions(source) if on_hub else Path(place)
    modules = folder / "modules.json"
    if not modules.is_file():
        return source, None
    parts = {part["type"].rpartition(".")[2]: part["path"] for part in _read_json(modules)}
    if unknown := parts.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ModelError(
            f"language model '{source}': its modules.json names {', '.join(sorted(unknown))}, which are not applied "
            "here; only a Transformer, a Pooling and a Normalize are"
        )
    pooling = _pooling(folder / parts["Pooling"] / "config.json", source) if "Pooling" in parts else None
    if not parts.get("Transformer"):
        return source, pooling
    if on_hub:
        raise ModelError(f"language model '{source}' lies in a part of its repository; download it and name the folder")
    return str(folder / parts["Transformer"]), pooling


def default_prompt(source: str) -> str:
    """What sentence-transformers would write before every text, by a folder's ``default_prompt_name``; or nothing.

    Args:
        source: as for `load_backbone`, or the part of the folder that is the language model.
    """
    place, gguf_file = resolve_source(source)
    if gguf_file:
        return ""
    of_model = Path(place) if Path(place).is_dir() else _descriptions(source)
    for folder in (of_model, of_model.parent):
        file = folder / _OF_SENTENCES
        if (folder / "modules.json").is_file() and file.is_file():
            keys = _read_json(file)
            return (keys.get("prompts") or {}).get(keys.get("default_prompt_name")) or ""
    return ""


def _descriptions(hub_id: str) -> Path:
    """A folder with the files of a hub id that say how its parts work together."""
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["modules.json", "*/config.json", _OF_SENTENCES]))
    except Exception as error:  # the hub has kinds of its own
        raise ModelError(
            f"language model '{hub_id}' is neither a local folder nor reachable on the hub; give {SOURCE_FORMS}. "
            f"{' '.join(str(error).split())}"
        ) from error


def _pooling(file: Path, source: str) -> str:
    keys = _read_json(file)
    names = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls", "lasttoken": "last"}
    modes = keys.get("pooling_mode") or [
        key.removeprefix("pooling_mode_") for key, chosen in keys.items() if key.startswith("pooling_mode_") and chosen
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in names:
        raise ModelError(f"language model '{source}': {file} pools by {modes}; give one of {', '.join(POOLINGS)} here")
    return names[modes[0]]


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
