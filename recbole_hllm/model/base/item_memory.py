"""How the item texts of a training step fit into memory: in chunks, whose activations are kept or computed again."""

import logging
from collections.abc import Sequence

from torch import nn

from recbole_hllm.config.keys.hllm import HLLMKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.memory import all_memory, free_memory, used_memory
from recbole_hllm.model.base.language_models import chunk_tokens
from recbole_hllm.nn.activations import Activations, Room, measure_activations
from recbole_hllm.nn.chunked import chunk_sizes
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.processes import current
from recbole_hllm.units import gigabytes

logger = logging.getLogger(__name__)

GIB = 2**30
# Of the memory that is free when nothing is named: user model, loss and other programs take some.
FREE_SHARE = 0.7
# Of all memory, the most that a chunk may take; the size of chunks decides the order of sums and must not depend on
# what happens to be free.
CHUNK_SHARE = 1 / 4
# Allocators round up and leave holes.
ROUNDED_UP = 1.25
# Bytes that training adds to a trained number of 4 bytes: its gradient and AdamW's two moments.
TRAINED_BYTES = 12
# Of each item's vector of a step, forth and back: in chunks, in the batch's order and as often as it occurs there, of
# length 1, in the loss, and their gradients; measured.
VECTOR_COPIES = 16
# Gradients of the largest weight that lie beside the one that is kept: a chunk's and the sum of those before.
GRADIENT_COPIES = 2


class ItemMemory:
    """Decides at the first step of a training how much of it is kept.

    Args:
        settings: ``memory_gb``, ``item_chunk_tokens`` and ``recompute_items``, and what they are about.
    """

    def __init__(self, settings: HLLMKeys) -> None:
        self.settings = settings
        self._activations: Activations | None = None
        self._left: float | None = None

    def chunk_tokens(self, encoder: ItemEncoder) -> int:
        """Padded tokens that are encoded at once: ``item_chunk_tokens``, or the usual number, halved until a chunk of
        the longest texts takes a fourth of ``memory_gb``, or of all memory."""
        tokens, longest = chunk_tokens(self.settings), _longest(encoder)
        named, activations = self.settings.memory_gb, self._measured(encoder)
        most = CHUNK_SHARE * (all_memory(self.settings.device) if named is None else named * GIB)
        while self.settings.item_chunk_tokens is None and tokens > longest:
            if _of_chunk(activations, (tokens // longest, longest)) <= most:
                break
            tokens //= 2
        return tokens

    def recompute(self, model: nn.Module, encoder: ItemEncoder, lengths: Sequence[int]) -> bool | Room:
        """What ``encode_items`` computes again of a step.

        Args:
            model: the whole, of which ``encoder`` is a part.
            lengths: tokens of each text.

        Raises:
            ConfigError: the step does not fit, however little of it is kept.
        """
        if self.settings.recompute_items is False and self.settings.memory_gb is None:
            return False
        first, chunks = self._left is None, chunk_sizes(lengths, self.chunk_tokens(encoder))
        self._check(model, encoder, chunks)
        decided = self._decide(model, encoder, chunks)
        if first and chunks:
            self._log(self._room(model, encoder, chunks), decided, chunks)
        return decided

    def of_step(self, model: nn.Module, encoder: ItemEncoder, tokens: Sequence[int]) -> tuple[float, int]:
        """What a step of texts of so many tokens, [ITEM] included, takes.

        Returns:
            bytes of the activations at their peak, and how many tokens are computed again.
        """
        lengths = [number - _item_tokens(encoder) for number in tokens]
        activations, chunks = self._measured(encoder), chunk_sizes(lengths, self.chunk_tokens(encoder))
        again = _computed_again(self._decide(model, encoder, chunks), chunks)
        kept = sum(activations.kept(*chunk) for chunk in chunks[again:])
        kept += max((activations.at_work(*chunk) for chunk in chunks[again:]), default=0)
        largest = max((_of_chunk(activations, chunk) for chunk in chunks[:again]), default=0)
        return max(kept, largest), sum(sorted(tokens, reverse=True)[: sum(texts for texts, _ in chunks[:again])])

    def _measured(self, encoder: ItemEncoder) -> Activations:
        if self._activations is None:
            trained = encoder.item_emb_tokens is not None or any(
                weight.requires_grad for weight in encoder.backbone.get_input_embeddings().parameters()
            )
            last = self.settings.item_llm_layers_trained
            self._activations = measure_activations(encoder.backbone, _longest(encoder), trained, last)
        return self._activations

    def _decide(self, model: nn.Module, encoder: ItemEncoder, chunks: Sequence[tuple[int, int]]) -> bool | Room:
        wanted = self.settings.recompute_items
        return self._room(model, encoder, chunks) if wanted is None else wanted

    def _room(self, model: nn.Module, encoder: ItemEncoder, chunks: Sequence[tuple[int, int]]) -> Room:
        activations = self._measured(encoder)
        share = FREE_SHARE if self.settings.memory_gb is None else 1
        at_work = max((activations.at_work(*chunk) for chunk in chunks), default=0)
        left = share * self._left_by_others(model) - _to_come(model) - _of_vectors(encoder, chunks) - at_work
        return Room(activations, left / ROUNDED_UP)

    def _check(self, model: nn.Module, encoder: ItemEncoder, chunks: Sequence[tuple[int, int]]) -> None:
        activations, vectors, left = self._measured(encoder), _of_vectors(encoder, chunks), self._left_by_others(model)
        needed = max((_of_chunk(activations, chunk) for chunk in chunks), default=0)
        what, way = "the largest chunk of activations", "give a smaller item_chunk_tokens"
        if self.settings.recompute_items is False and len(chunks) > 1:
            needed = sum(activations.kept(*chunk) for chunk in chunks)
            what, way = "all activations, which recompute_items: False keeps,", "leave recompute_items empty"
        if vectors + needed > left:
            texts, more = sum(number for number, _ in chunks), ", a larger memory_gb" * bool(self.settings.memory_gb)
            leaves = f"{self._of_what} leaves {gigabytes(max(left, 0))}{self._beside()}"
            raise ConfigError(
                f"a training step of {texts:,} different items does not fit into memory: their vectors need "
                f"{gigabytes(vectors)} and {what} {gigabytes(needed)}, and {leaves}; take fewer "
                f"num_negatives, a smaller train_batch_size{more}, or {way}"
            )

    @property
    def _of_what(self) -> str:
        named = self.settings.memory_gb
        return "the memory that is free" if named is None else f"memory_gb: {named:g}"

    def _beside(self) -> str:
        """What a limit leaves little of: the process takes some before it trains."""
        used = used_memory(self.settings.device)
        return "" if self.settings.memory_gb is None else f" beside the {gigabytes(used)} that are taken already"

    def _left_by_others(self, model: nn.Module) -> float:
        """Bytes for items, gradients and the optimizer, at the first step."""
        if self._left is None:
            device, named = self.settings.device, self.settings.memory_gb
            left = free_memory(device) if named is None else named * GIB - used_memory(device)
            self._left = left - sum(4 * weight.numel() for weight in model.parameters() if weight.is_meta)
        return self._left

    def _log(self, room: Room, decided: bool | Room, chunks: Sequence[tuple[int, int]]) -> None:
        again, width = _computed_again(decided, chunks), chunks[0][1]
        texts, kept = (sum(number for number, _ in part) for part in (chunks, chunks[again:]))
        token = room.activations.kept(1, width) / width / 1e3
        logger.info(
            f"memory of items: {token:.0f} kB a token are kept for the backward pass, for which {self._of_what} has "
            f"{gigabytes(max(room.size, 0))}; of the first step's {texts:,} items, {kept:,} are kept and "
            f"{texts - kept:,}, the longest, computed again, in chunks of up to {chunks[0][0] * width:,} tokens"
        )
        if room.size < 0 and self.settings.memory_gb is not None and current().world_size == 1:
            logger.warning(
                f"{self._of_what} is too little by about {gigabytes(-room.size * ROUNDED_UP)}, with the gradients and "
                f"the optimizer's state to come{self._beside()}: training takes more"
            )


def _to_come(model: nn.Module) -> float:
    """Gradients and moments, where one process keeps them on this device; several may share them, so that they are no
    reason to refuse a step."""
    trained = [weight.numel() for weight in model.parameters() if weight.requires_grad]
    return TRAINED_BYTES * sum(trained) + 4 * GRADIENT_COPIES * max(trained, default=0)


def _of_vectors(encoder: ItemEncoder, chunks: Sequence[tuple[int, int]]) -> float:
    return 4 * VECTOR_COPIES * encoder.out_features * sum(texts for texts, _ in chunks)


def _computed_again(decided: bool | Room, chunks: Sequence[tuple[int, int]]) -> int:
    """How many of the first chunks."""
    if isinstance(decided, Room):
        return decided.computed_again(chunks)
    return len(chunks) if decided else 0


def _item_tokens(encoder: ItemEncoder) -> int:
    return 0 if encoder.item_emb_tokens is None else 1


def _longest(encoder: ItemEncoder) -> int:
    return encoder.max_text_length + _item_tokens(encoder)


def _of_chunk(activations: Activations, chunk: tuple[int, int]) -> float:
    return activations.kept(*chunk) + activations.at_work(*chunk)
