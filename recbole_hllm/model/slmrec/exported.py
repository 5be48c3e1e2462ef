"""What trainings of E4SRec and SLMRec start from, in an export."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.exported import Exported, exported
from recbole_hllm.model.base.servable import TrainingPart
from recbole_hllm.nn.saved import on_cpu
from recbole_hllm.serving.folder import TRAINING
from recbole_hllm.storage.cache import digest

logger = logging.getLogger(__name__)

# Of one that an earlier version exported.
_EARLIER = "e4srec.safetensors", ("llm", "llm")
_KIND = "E4SRec"
_REST = ("item_table.weight", "input_proj.weight", "input_proj.bias", "score.weight", "llm.before", "llm.after")


def training_part_of(model: Any) -> TrainingPart:
    """All beside the language model."""
    own = model.state_dict()
    facts = {"ids": digest(*model.item_tokens), "training": model.training_digest}
    return TrainingPart(_KIND, model.llm.backbone, {name: on_cpu(own[name]) for name in _REST}, facts)


def exported_e4srec(pretrained_e4srec: str | Path | None) -> Exported | None:
    """The export that a value of ``pretrained_e4srec`` names; None where it is empty.

    Raises:
        ConfigError: there is no export in the folder.
    """
    if not pretrained_e4srec:
        return None
    folder = Path(pretrained_e4srec).expanduser()
    found = exported(folder, "pretrained_e4srec", *_EARLIER)
    if found is None:
        raise ConfigError(
            f"pretrained_e4srec: {folder} has no {TRAINING}; give a folder that recbole-hllm export wrote of an E4SRec "
            "or SLMRec"
        )
    return found


def load_exported(model: Any, export: Exported) -> None:
    """Everything beside the language model, which was built from the same folder.

    Raises:
        ConfigError: it is of other items, or of another width.
        ModelError: it is damaged, or of another kind of model.
    """
    folder, of, rest = export.rest.parent, export.metadata(_KIND), export.weights(_KIND)
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
