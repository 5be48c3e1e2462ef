"""E4SRec and SLMRec for elsewhere: what recommends, as a Hugging Face folder and one file beside it."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.hllm.pretrained import exporting
from recbole_hllm.nn.saved import save_without_words
from recbole_hllm.storage.cache import digest

logger = logging.getLogger(__name__)

REST_OF_E4SREC = "e4srec.safetensors"
_REST = ("item_table.weight", "input_proj.weight", "input_proj.bias", "score.weight", "llm.before", "llm.after")


def export_e4srec(model: Any, folder: str | Path) -> None:
    """Writes the model; see ``E4SRec.export``."""
    own, folder = model.state_dict(), Path(folder)
    rest = {name: own[name].detach().cpu().contiguous() for name in _REST}
    with exporting(folder):
        save_without_words(model.llm.backbone, folder / "llm")
        (folder / "item_ids.txt").write_text("".join(f"{token}\n" for token in model.item_tokens), encoding="utf-8")
        # Last, so that a folder with this file is whole.
        metadata = {"ids": digest(*model.item_tokens), "training": model.training_digest}
        save_file(rest, folder / REST_OF_E4SREC, metadata=metadata)


def exported_e4srec(pretrained_e4srec: str | Path | None) -> Path | None:
    """The folder that a value of ``pretrained_e4srec`` names; None where it is empty.

    Raises:
        ConfigError: there is no export in it.
    """
    if not pretrained_e4srec:
        return None
    folder = Path(pretrained_e4srec).expanduser()
    if not (folder / REST_OF_E4SREC).is_file():
        raise ConfigError(
            f"pretrained_e4srec: {folder} has no {REST_OF_E4SREC}; give a folder that E4SRec.export wrote"
        )
    return folder


def load_exported(model: Any, folder: Path) -> None:
    """Everything beside the language model, which was built from the same folder.

    Raises:
        ConfigError: it is of other items, or of another width.
        ModelError: it is damaged.
    """
    file = folder / REST_OF_E4SREC
    try:
        with safe_open(file, framework="pt") as saved:
            of, rest = saved.metadata() or {}, {name: saved.get_tensor(name) for name in _REST}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"pretrained_e4srec: {file} is damaged: {error}") from error
    if of.get("ids") != digest(*model.item_tokens):
        raise ConfigError(f"pretrained_e4srec: {folder} is of other items than this data set; train a new one")
    if of.get("training") != model.training_digest:
        logger.warning(
            "pretrained_e4srec: %s was trained on other interactions than this run's; where items that are to be "
            "predicted here were among them, every metric is too good",
            folder,
        )
    width = rest["item_table.weight"].shape[1]
    if width != model.item_table.embedding_dim:
        raise ConfigError(f"item_embed_dim: pretrained_e4srec has rows of {width} numbers; set item_embed_dim: {width}")
    model.llm.before, model.llm.after = (nn.Parameter(rest.pop(f"llm.{text}")) for text in ("before", "after"))
    with torch.no_grad():
        for name, weight in rest.items():
            model.get_parameter(name).copy_(weight)
