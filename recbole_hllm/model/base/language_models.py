"""What keys of language models mean: how one is computed, how much of the texts is read at once, and LoRA."""

from recbole_hllm.config.keys.language_models import ComputeKeys, EncodingKeys, LoraKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.nn.tuning import LoraSettings


def attention(settings: ComputeKeys) -> str | None:
    """On a CPU plain matrix products beat the fused kernel for texts and histories of a few dozen tokens."""
    return settings.attn_implementation or ("eager" if settings.device.type == "cpu" else None)


def chunk_tokens(settings: EncodingKeys) -> int:
    """Padded tokens the Item LLM encodes at once: what a CPU's caches like is too little for a GPU."""
    return settings.item_chunk_tokens or (2048 if settings.device.type == "cpu" else 8192)


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
