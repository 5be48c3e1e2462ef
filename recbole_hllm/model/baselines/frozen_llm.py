"""The pretrained language model of the baselines that train nothing of it."""

from recbole_hllm.config.keys.baselines import PromptLLMKeys, TextKNNKeys
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.language_models import attention
from recbole_hllm.nn.backbone import BackboneSpec


def named_source(settings: TextKNNKeys | PromptLLMKeys, purpose: str) -> str:
    """Where it and its tokenizer lie.

    Args:
        purpose: what it is for, for the error.

    Raises:
        ConfigError: it has no name.
    """
    if not settings.item_pretrain_dir:
        raise ConfigError(f"item_pretrain_dir: name the {purpose}")
    return settings.item_pretrain_dir


def frozen_spec(settings: TextKNNKeys | PromptLLMKeys, source: str, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The language model, as its keys say."""
    return BackboneSpec(
        source,
        init="pretrained" if weights.are_read else "scratch",
        num_layers=settings.item_llm_layers,
        layers_key="item_llm_layers",
        attn_implementation=attention(settings),
        trust_remote_code=settings.trust_remote_code,
    )
