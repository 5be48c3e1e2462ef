"""What keys of language models mean: how one is computed, how much of the texts is read at once, and LoRA."""

from transformers import PreTrainedModel

from recbole_hllm.config.keys.language_models import ComputeKeys, EncodingKeys, LoraKeys, PackingKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.nn.packing import FLASH
from recbole_hllm.nn.probe import reads_packed
from recbole_hllm.nn.tuning import LoraSettings


def attention(settings: ComputeKeys) -> str | None:
    """On a CPU plain matrix products beat the fused kernel for texts and histories of a few dozen tokens."""
    return settings.attn_implementation or ("eager" if settings.device.type == "cpu" else None)


def chunk_tokens(settings: EncodingKeys) -> int:
    """Padded tokens the Item LLM encodes at once: what a CPU's caches like is too little for a GPU."""
    return settings.item_chunk_tokens or (2048 if settings.device.type == "cpu" else 8192)


def packed(settings: PackingKeys, llm: PreTrainedModel) -> bool:
    """Whether a language model reads item texts without padding.

    Raises:
        ConfigError: it is to, and cannot.
    """
    if settings.item_packing == "padded":
        return False
    free, can = settings.attn_implementation in (None, FLASH), reads_packed(llm)
    if settings.item_packing == "packed" and not (free and can):
        reason = (
            f"attn_implementation: {settings.attn_implementation} needs padding; leave it empty"
            if not free
            else f"attention of a {llm.config.model_type} model of this configuration needs padding"
        )
        raise ConfigError(f"item_packing: packed: {reason}, or give item_packing: auto")
    return free and can


def lora_settings(settings: LoraKeys) -> LoraSettings:
    """The LoRA of every language model that is tuned so.

    Raises:
        ConfigError: ``lora_target_modules`` are no names.
    """
    names = settings.lora_target_modules or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"lora_target_modules: {names!r} is not a list of names of linear layers")
    return LoraSettings(settings.lora_r, settings.lora_alpha, settings.lora_dropout, tuple(names))
