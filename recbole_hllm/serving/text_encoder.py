"""Texts -> vectors, by the sentence-transformers folder of an export: its language model, pooling and dense layers.

The library itself is not needed. Of its modules those are read that an export writes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
# Keys of a module's size of vectors, of a Dense layer's, then of a Pooling's, new and old.
_SIZES = ("out_features", "embedding_dimension", "word_embedding_dimension")
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
        self.modules = _modules_of(folder)
        self._state = _state_of(folder)
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
        if not texts:
            return torch.zeros(0, self._width())
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
        return torch.cat(vectors).float()

    def _width(self) -> int:
        """C, without the language model."""
        with self._damage():
            sized = [module for module in self.modules[1:] if not module["type"].endswith("Normalize")]
            settings = [read_json(self.folder / module["path"] / "config.json") for module in sized]
            return next(size for one in reversed(settings) for key in _SIZES if (size := one.get(key)) is not None)

    def _load(self) -> tuple[Any, Any, str, nn.Module, int]:
        if self._loaded is None:
            from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer

            if _state_of(self.folder) != self._state:
                raise Damaged(f"{self.folder} has changed since the export was read; read the export again")
            with self._damage():
                settings = read_json(self.folder / "sentence_bert_config.json")
                pooling = _mode_of(read_json(self.folder / self.modules[1]["path"] / "config.json"))
                head = nn.Sequential(*map(self._module, self.modules[2:]))
                tokenizer = load_tokenizer(str(self.folder))
                llm = load_backbone(BackboneSpec(str(self.folder))).eval()
                tokenizer.padding_side = "right"
                longest = int(settings["max_seq_length"])
            self._loaded = tokenizer, llm.to(self.device), pooling, head.to(self.device), longest
        return self._loaded

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
            raise Damaged(f"{self.folder} is damaged: {error}") from error

    def _module(self, module: dict[str, str]) -> nn.Module:
        if module["type"].endswith("Normalize"):
            return _Normalize()
        folder = self.folder / module["path"]
        settings = read_json(folder / "config.json")
        if (activation := settings["activation_function"]) not in _ACTIVATIONS:
            raise ModelError(f"{folder / 'config.json'}: {activation} is none of {', '.join(_ACTIVATIONS)}")
        layer = nn.Linear(settings["in_features"], settings["out_features"], bias=settings["bias"])
        weights = load_file(folder / "model.safetensors")
        layer.load_state_dict({name.removeprefix("linear."): weight for name, weight in weights.items()})
        return nn.Sequential(layer, _ACTIVATIONS[activation]())


def _modules_of(folder: Path) -> list[dict[str, str]]:
    """What modules.json lists.

    Raises:
        ModelError: other modules than an export has, one that lies elsewhere, or no list.
    """
    file = folder / "modules.json"
    modules = read_json(file)
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        paths = [str(module["path"]) for module in modules]
    except (TypeError, KeyError) as error:
        raise Damaged(f"{file} is damaged: it lists no modules") from error
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
        raise ModelError(f"{folder}: {', '.join(kinds)} in modules.json, not Transformer, Pooling and Dense layers")
    for kind, path in zip(kinds, paths, strict=True):
        if path != Path(path).name or path == ".." or (kind == "Transformer") != (path == ""):
            raise ModelError(f"{file}: {path!r} of a {kind} is no folder in it")
    return modules


def _state_of(folder: Path) -> list[tuple[str, int, int, int]]:
    """By which other files in the place of these are noticed: their vectors would be none of the export's."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    states = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    return [(name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states]


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
