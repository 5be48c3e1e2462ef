"""The teacher of a distilled model: read from its run, and its states on the training rows, fresh or from the disk."""

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.language_models import LoraKeys
from recbole_hllm.config.keys.slmrec import E4SRecKeys, LanguageModelKeys, SLMRecKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.data.rows.columns import ROW_NUMBER
from recbole_hllm.data.texts.vectors import weights_digest
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.trained_run import over_default, settings_of, with_best_weights
from recbole_hllm.model.slmrec.e4srec import E4SRec
from recbole_hllm.nn.distillation import block_ends
from recbole_hllm.nn.precision import autocast
from recbole_hllm.storage.cache import cache_folder, digest, locked, new_entry, read_arrays

logger = logging.getLogger(__name__)

FORMAT = 2  # raise it when the arrays or their meaning change
# Keys that decide what a teacher is made of.
MADE_OF = (*LanguageModelKeys.keys, "instruction", "item_embed_dim", "pretrained_e4srec", *LoraKeys.keys)


# What a language model's config says of its depth, its place, its words and how it is computed, not of what.
_OF_ONE_MODEL = {
    "num_hidden_layers", "_name_or_path", "transformers_version", "dtype", "_attn_implementation", "vocab_size",
    "bos_token_id", "eos_token_id", "pad_token_id",
}  # fmt: skip


# ---- the model ----


def computed_by(llm_config: Any, lora_alpha: float | None) -> dict[str, Any]:
    """What decides, beside the weights, what a model computes from its items; depth is not of it.

    Args:
        llm_config: the Hugging Face config of its language model.
        lora_alpha: None without LoRA.
    """
    own = _OF_ONE_MODEL | {llm_config.attribute_map.get(name, name) for name in _OF_ONE_MODEL}  # n_layer of a GPT-2
    stored = llm_config.to_dict()
    kept = {name: value for name, value in stored.items() if name not in own and not isinstance(value, list)}
    return {**kept, "user_llm_tuning": "without LoRA" if lora_alpha is None else f"lora_alpha {lora_alpha}"}


def keys_of_teacher(settings: SLMRecKeys) -> dict[str, Any]:
    """What ``teacher_keys`` say of a teacher that has yet to be trained; an exported one brings its language model."""
    keys = over_default(settings, "teacher_keys")
    brought = dict.fromkeys(("user_llm_config", "instruction")) if keys.get("pretrained_e4srec") else {}
    return {**brought, **keys}


def teacher_config(config: Any, made: Mapping[str, Any] | None = None) -> Any:
    """The student's Config with the values that make its teacher, which reads the keys of an E4SRec.

    Args:
        made: keys and values of the teacher's run; None takes ``teacher_keys``, for one that is trained beside the
            student.

    Raises:
        ConfigError: a value that cannot be used.
    """
    own = keys_of_teacher(SLMRecKeys.of(config)) if made is None else {key: made.get(key) for key in MADE_OF}
    return config.with_values({**E4SRecKeys.checked(own), "item_table": None, "model": "teacher"})


def read_teacher(config: Any, dataset: Any) -> E4SRec:
    """The teacher of the run that ``teacher`` names, with its best weights, in evaluation mode.

    Raises:
        ConfigError: no finished run of E4SRec there, or one of other data.
        ModelError: its weights are damaged or do not fit.
    """
    folder = Path(SLMRecKeys.of(config).teacher or "").expanduser()
    made = teacher_config(config, settings_of(folder, "teacher", ["E4SRec"], dataset))
    return with_best_weights(E4SRec(made, dataset, weights=Weights.FOLLOW), folder, "teacher")


# ---- its states on training rows ----


def ends_of(depth: int, blocks: int, whose: str) -> tuple[int, ...]:
    """``block_ends`` of a student or teacher.

    Raises:
        ConfigError: it cannot be cut so.
    """
    try:
        return block_ends(depth, blocks)
    except ModelError as error:
        raise ConfigError(f"blocks: {whose} {error}") from None


class FreshStates:
    """The teacher reads every batch again: always when it is trained too, or to compare with the stored states.

    Args:
        teacher: an E4SRec.
        blocks: how many states of each position are wanted.
        frozen: no gradients, no dropout.

    Attributes:
        outputs, targets: of the last batch, (P, H) and (P,).
    """

    def __init__(self, teacher: E4SRec, blocks: int, frozen: bool = False) -> None:
        self.teacher, self.frozen = teacher, frozen
        self.ends = ends_of(teacher.llm.depth, blocks, "the teacher's")
        self.outputs: Tensor | None = None
        self.targets: Tensor | None = None

    def __call__(self, rows: Interaction, order: Tensor) -> list[Tensor]:
        """(P, H) states at the end of each block, for the positions of a batch of training rows in reading order.

        Args:
            rows: the batch.
            order: (B,) in which the student read its rows; the teacher reads them in the same.
        """
        if self.frozen:
            self.teacher.eval()
        with torch.set_grad_enabled(not self.frozen):
            states, self.targets, _ = self.teacher.read_rows(rows, self.ends)
        self.outputs = states[-1]
        return states[: len(self.ends)]


class UnknownStates:
    """Zeros for what a teacher that is not there yet would have stored, so that a step can be timed.

    Args:
        student: the SLMRec.
        blocks: how many states of each position are wanted.
    """

    def __init__(self, student: E4SRec, blocks: int) -> None:
        self.student, self.blocks = student, blocks

    def __call__(self, rows: Interaction, order: Tensor) -> list[Tensor]:
        """As ``FreshStates``."""
        positions = int(_positions_of(rows, self.student, order).sum())
        return [torch.zeros(positions, self.student.llm.hidden_size, device=order.device)] * self.blocks


class CachedStates:
    """The states of a frozen teacher on every training row, computed once and memory-mapped.

    Args:
        states: (N, B, H) float32, the positions of row after row.
        offsets: (R + 1,) where each row's positions begin.
    """

    def __init__(self, states: np.ndarray, offsets: np.ndarray) -> None:
        self.states, self.offsets = states, offsets

    def __call__(self, rows: Interaction, order: Tensor) -> list[Tensor]:
        """As ``FreshStates``."""
        numbers = rows[ROW_NUMBER][order].cpu().numpy()
        begin, end = self.offsets[numbers], self.offsets[numbers + 1]
        positions = np.concatenate([np.arange(*bounds) for bounds in zip(begin, end, strict=True)])
        taken = torch.from_numpy(self.states[positions]).to(order.device)
        return list(taken.unbind(1))

    @classmethod
    def of(cls, teacher: E4SRec, settings: SLMRecKeys, dataset: Any) -> "CachedStates":
        """From the disk, or computed and kept there, under a key of the teacher's weights and the training rows.

        Args:
            settings: the student's.

        Raises:
            DataError: the disk is full or the folder cannot be written.
        """
        ends = ends_of(teacher.llm.depth, settings.blocks, "the teacher's")
        computes = computed_by(teacher.llm.backbone.config, teacher.lora_alpha)
        meta = {
            "format": FORMAT,
            "weights": weights_digest(teacher.state_dict().items()),
            "computes": digest(json.dumps(computes, sort_keys=True, default=str)),
            "rows": _rows_digest(dataset, teacher.every_position),
            "every_position": teacher.every_position,
            "layers": ends,
            "precision": settings.precision,
        }
        entry = cache_folder(settings.cache_dir, settings.data_path) / f"teacher-{digest(meta)}"
        with locked(entry, f"teacher states: {entry}"):
            return cls._kept(teacher, settings, dataset, ends, entry, meta)

    @classmethod
    def _kept(
        cls,
        teacher: E4SRec,
        settings: SLMRecKeys,
        dataset: Any,
        ends: tuple[int, ...],
        entry: Path,
        meta: dict[str, Any],
    ) -> "CachedStates":
        found = read_arrays(entry, meta)
        if found is not None:
            logger.info("teacher states: from %s", entry)
            return cls(found["states"], found["offsets"])
        offsets = _offsets(dataset, teacher.every_position)
        shape = (int(offsets[-1]), len(ends), teacher.llm.hidden_size)
        logger.info("teacher states: %d positions x %d blocks are computed, for %s", shape[0], shape[1], entry)
        start, size = time.perf_counter(), 4 * math.prod(shape)
        with new_entry(entry, meta, size) as folder:
            states = np.lib.format.open_memmap(folder / "states.npy", mode="w+", dtype=np.float32, shape=shape)
            _compute(teacher, settings, dataset, ends, states)
            states.flush()
            np.save(folder / "offsets.npy", offsets)
        logger.info("teacher states: %.0f MB in %.1f s", size / 1e6, time.perf_counter() - start)
        kept = read_arrays(entry, meta)
        assert kept is not None, "written above, and locked"
        return cls(kept["states"], kept["offsets"])


@torch.no_grad()
def _compute(teacher: E4SRec, settings: SLMRecKeys, dataset: Any, ends: tuple[int, ...], states: np.ndarray) -> None:
    """Fills ``states`` row after row, in evaluation mode and the precision of the training."""
    device, dtype, size, done = settings.device, AUTOCAST_DTYPES[settings.precision], settings.train_batch_size, 0
    teacher.eval()
    for start in range(0, len(dataset), size):
        rows = dataset[torch.arange(start, min(start + size, len(dataset)))].to(device)
        with autocast(device, dtype):
            read, _, order = teacher.read_rows(rows, ends)
        stacked = torch.stack(read[: len(ends)], 1).float().cpu()
        lengths = _positions_of(rows, teacher, order).cpu()
        parts = dict(zip(order.tolist(), stacked.split(lengths.tolist()), strict=True))
        batch = torch.cat([parts[row] for row in range(len(parts))])
        states[done : done + len(batch)] = batch.numpy()
        done += len(batch)


def _positions_of(rows: Interaction, teacher: E4SRec, order: Tensor) -> Tensor:
    """(B,) how many targets each row has, in reading order."""
    if not teacher.every_position:
        return torch.ones_like(order)
    return (rows[teacher.ITEM_SEQ][:, 1:] != 0).sum(1)[order]


def _offsets(dataset: Any, every_position: bool) -> np.ndarray:
    lengths = np.ones(len(dataset), np.int64)
    if every_position:
        lengths = np.diff(dataset.rows.windows[:])[:, 0] - 1
    return np.concatenate([[0], np.cumsum(lengths)])


def _rows_digest(dataset: Any, every_position: bool) -> str:
    """What the training rows hold, in order."""
    bounds, sequences = dataset.rows.windows if every_position else dataset.targets, dataset.sequences
    items = sequences.items.astype(np.int64)
    return digest(np.asarray(bounds), items, sequences.offsets, dataset.max_item_list_len)
