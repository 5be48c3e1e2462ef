"""Texts -> vectors, by the sentence-transformers folder of an export: its language model, pooling and dense layers.

The library itself is not needed. Of its modules those are read that an export writes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from recbole_hllm.errors import Damaged, DataError, ModelError
from recbole_hllm.storage.files import read_json

# Texts encoded at once.
_BATCH = 64
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.GELU": nn.GELU,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
}


class TextEncoder:
    """Encodes texts. The language model is loaded when the first text comes.

    Args:
        folder: of sentence-transformers.

    Raises:
        ModelError: it has modules that an export never has.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = folder, torch.device(device)
        self.modules = read_json(folder / "modules.json")
        kinds = [module["type"].rpartition(".")[2] for module in self.modules]
        if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
            raise ModelError(f"{folder}: {', '.join(kinds)} in modules.json, not Transformer, Pooling and Dense layers")
        self._loaded: tuple[Any, Any, str, nn.Module, int] | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the language model is in memory."""
        return self._loaded is not None

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """(N, C) float32 vectors of N texts.

        Raises:
            ModelError: a file is missing or damaged.
            DataError: the tokenizer finds nothing in a text.
        """
        tokenizer, llm, pooling, head, longest = self._load()
        vectors = []
        for first in range(0, len(texts), _BATCH):
            batch = tokenizer(
                list(texts[first : first + _BATCH]),
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(self.device)
            batch.pop("token_type_ids", None)  # zeros, which is what a model takes where there are none
            if not batch["attention_mask"].any(dim=1).all():
                raise DataError("texts: the language model finds no word in one; give it other words, or leave it out")
            hidden = llm(**batch).last_hidden_state
            vectors.append(head(_pool(hidden, batch["attention_mask"], pooling)))
        return torch.cat(vectors).float() if vectors else torch.zeros(0, 0)

    def _load(self) -> tuple[Any, Any, str, nn.Module, int]:
        if self._loaded is None:
            from transformers import AutoModel, AutoTokenizer

            settings = read_json(self.folder / "sentence_bert_config.json")
            pooling = read_json(self.folder / self.modules[1]["path"] / "config.json")
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.folder)
                llm = AutoModel.from_pretrained(self.folder, dtype=torch.float32, use_safetensors=True)
                head = nn.Sequential(*map(self._module, self.modules[2:]))
            except (OSError, ValueError, SafetensorError, KeyError, RuntimeError) as error:
                raise Damaged(f"{self.folder} is damaged: {error}") from error
            tokenizer.padding_side = "right"
            mode = _mode_of(pooling)
            self._loaded = tokenizer, llm.eval().to(self.device), mode, head.to(self.device), settings["max_seq_length"]
        return self._loaded

    def _module(self, module: dict[str, str]) -> nn.Module:
        if module["type"].endswith("Normalize"):
            return _Normalize()
        folder = self.folder / module["path"]
        settings = read_json(folder / "config.json")
        layer = nn.Linear(settings["in_features"], settings["out_features"], bias=settings["bias"])
        weights = load_file(folder / "model.safetensors")
        layer.load_state_dict({name.removeprefix("linear."): weight for name, weight in weights.items()})
        return nn.Sequential(layer, _ACTIVATIONS[settings["activation_function"]]())


class _Normalize(nn.Module):
    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1)


def _mode_of(settings: dict[str, Any]) -> str:
    """Of a Pooling's settings, of this or earlier versions of the library."""
    if "pooling_mode" in settings:
        return str(settings["pooling_mode"])
    earlier = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
    return next((mode for mode, name in earlier.items() if settings.get(f"pooling_mode_{name}")), "?")


def _pool(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
    """(N, W, H) states of texts padded on the right -> (N, H)."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), (mask.sum(1) - 1).clamp(min=0)]
    if mode != "mean":
        raise ModelError(f"pooling {mode!r} is none of mean, cls and lasttoken")
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
