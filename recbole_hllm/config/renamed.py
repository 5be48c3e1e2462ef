"""Names that keys had before: an error says what they are now, and folders of earlier runs are still read."""

from pathlib import Path
from typing import Any

from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.errors import ConfigError

# Keys that only have another name now.
_NAMES = {
    # Of E4SRec and SLMRec: their language model reads vectors of items, as HLLM's User LLM does.
    "llm_pretrain_dir": "user_pretrain_dir",
    "llm_init": "user_llm_init",
    "llm_config": "user_llm_config",
    "llm_layers": "user_llm_layers",
    "llm_tuning": "user_llm_tuning",
    # Of LEARN: one language model reads texts of items, and with preference: llm another one their vectors.
    "content_llm_dir": "item_pretrain_dir",
    "content_bert_dir": "item_pretrain_dir",
    "content_layers": "item_llm_layers",
    "preference_dir": "user_pretrain_dir",
    "preference_layers": "user_llm_layers",
    "preference_tuning": "user_llm_tuning",
    "negatives_from": "negatives",
    # Of HSTU: a variant is a row of a table, HSTU@name.
    "variant": "implementation",
}
# Keys that others have replaced.
_REPLACED = {
    "distill": "a weight of 0 leaves a term out: distill_cos, distill_norm, distill_heads",
    "reduction": "reference: [distillation_sum] sums over blocks, as the published code does",
    "norm_power": "reference: [distillation_norm] does not square the distance, as the published code does",
}
_TERMS = ("cos", "norm", "heads")
# What `reference: True` stood for before the names of the published SLMRec code were among them.
_OF_THE_HLLM_CODE = [
    "positions", "truncation", "special_tokens", "empty_text", "missing_words", "raw_text", "chunks", "short_users",
    "mask_target", "weight_decay", "warmup",
]  # fmt: skip


def refuse_renamed(shown: str, where: str = "", value: Any = None) -> None:
    """Raises ConfigError for a name that a key had before.

    Args:
        shown: the key as it was given, ``<Model>.<key>`` or ``<key>``.
        where: what the error says of its place, such as `` in FILE``.
        value: of the key; a dict may be of keys of another run, or of a search.
    """
    prefix, dot, key = shown.rpartition(".")
    if key in _NAMES:
        raise ConfigError(f"key '{shown}'{where} is called '{prefix}{dot}{_NAMES[key]}' now")
    if key in _REPLACED:
        raise ConfigError(f"key '{shown}'{where} no longer exists: {_REPLACED[key]}")
    if isinstance(value, dict) and (key == "search" or key.endswith("_keys")):
        for name in value:
            refuse_renamed(str(name), f" in {shown}{where}")


def upgraded(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run or table of an earlier version, under the names that keys have now.

    Args:
        settings: what its ``config.yaml`` or ``keys.yaml`` holds, ``<Model>.<key>`` included; dicts of keys for
            another run, such as ``teacher_keys``, are upgraded as well.
    """
    made: dict[str, Any] = {}
    for name, value in settings.items():
        prefix, dot, key = name.rpartition(".")
        if key.endswith("_keys") and isinstance(value, dict):
            value = upgraded(value)
        if key == "search" and isinstance(value, dict):
            value = {_NAMES.get(of_space, of_space): values for of_space, values in value.items()}
        if key in _NAMES and not _of_the_other_content(key, prefix + dot, settings):
            made[f"{prefix}{dot}{_NAMES[key]}"] = value
        elif key not in _NAMES and key not in _REPLACED:
            made[name] = value
    for prefix in {name.removesuffix(key) for key in _REPLACED for name in settings if name.rpartition(".")[2] == key}:
        _replace(prefix, settings, made)
    return made


def read_saved(file: Path) -> dict[str, Any]:
    """Keys that a run or a table has saved, in this version or an earlier one.

    Raises:
        ConfigError: as ``read_yaml``.
    """
    return upgraded(read_yaml(file))


def _of_the_other_content(key: str, prefix: str, settings: dict[str, Any]) -> bool:
    """LEARN had one language model for each kind of content; the one that its content does not read is gone."""
    if key not in ("content_llm_dir", "content_bert_dir"):
        return False
    content = settings.get(f"{prefix}content") or settings.get("content") or "bert"
    both = {f"{prefix}content_llm_dir", f"{prefix}content_bert_dir"} <= settings.keys()
    return both and key != f"content_{'llm' if content == 'llm' else 'bert'}_dir"


def _replace(prefix: str, settings: dict[str, Any], made: dict[str, Any]) -> None:
    """Distillation, said with the keys there are now."""
    terms = settings.get(f"{prefix}distill")
    if terms is not None:
        made |= {f"{prefix}distill_{term}": 0.0 for term in _TERMS if term not in terms}
    published = ["distillation_sum"] if settings.get(f"{prefix}reduction") == "sum" else []
    published += ["distillation_norm"] if settings.get(f"{prefix}norm_power") == 1 else []
    given = settings.get(f"{prefix}reference", settings.get("reference"))
    if published or given is True:
        names = _OF_THE_HLLM_CODE if given is True else [given] if isinstance(given, str) else list(given or [])
        made[f"{prefix}reference"] = [*names, *published]
