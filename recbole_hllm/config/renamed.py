"""Names that keys had before: an error says what they are now, and folders of earlier runs are still read."""

from pathlib import Path
from typing import Any

from recbole_hllm.config.keys.pages import PAGES
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.config.places import recbole_folder
from recbole_hllm.errors import ConfigError

# Models -> their keys that only have another name now.
_OF_MODELS = {
    # Their language model reads vectors of items, as HLLM's User LLM does.
    ("E4SRec", "SLMRec"): {
        "llm_pretrain_dir": "user_pretrain_dir",
        "llm_init": "user_llm_init",
        "llm_config": "user_llm_config",
        "llm_layers": "user_llm_layers",
        "llm_tuning": "user_llm_tuning",
    },
    # One language model reads texts of items, and with preference: llm another one their vectors.
    ("LEARN", "LEARNScorer"): {
        "content_llm_dir": "item_pretrain_dir",
        "content_bert_dir": "item_pretrain_dir",
        "content_layers": "item_llm_layers",
        "preference_dir": "user_pretrain_dir",
        "preference_layers": "user_llm_layers",
        "preference_tuning": "user_llm_tuning",
        "negatives_from": "negatives",
    },
    # A variant is a row of a table, HSTU@name.
    ("HSTU",): {"variant": "implementation"},
}
_NAMES = {old: new for names in _OF_MODELS.values() for old, new in names.items()}
# Keys that others have replaced.
_REPLACED = {
    "distill": "a weight of 0 leaves a term out: distill_cos, distill_norm, distill_heads",
    "reduction": "reference: [distillation_sum] sums over blocks, as the published code does",
    "norm_power": "reference: [distillation_norm] does not square the distance, as the published code does",
}
_OWNERS = {old: models for models, names in _OF_MODELS.items() for old in names} | dict.fromkeys(_REPLACED, ("SLMRec",))
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

    Only the models that had a key get its new name, since others may have that one too: in a table a key without a
    model's name becomes one of each of them. A key of a user's own model, of which there were none, stays as it is.

    Args:
        settings: what its ``config.yaml`` or ``keys.yaml`` holds, ``<Model>.<key>`` included; dicts of keys for
            another run, such as ``teacher_keys``, are upgraded as well.
    """
    rows = _rows(settings)
    made: dict[str, Any] = {}
    replaced: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        prefix, _, key = name.rpartition(".")
        if key.endswith("_keys") and isinstance(value, dict):
            value = upgraded(value)
        if key == "search" and isinstance(value, dict):
            value = {_NAMES.get(of_space, of_space): values for of_space, values in value.items()}
        if key not in _OWNERS or _is_own(prefix or rows[0]):
            made[name] = value
        elif not _of_the_other_content(key, prefix, settings):
            for owner in [prefix + "."] if prefix else _owners(key, rows):
                if key in _REPLACED:
                    replaced.setdefault(owner, {})[key] = value
                else:
                    made.setdefault(f"{owner}{_NAMES[key]}", value)
    for owner, keys in replaced.items():
        made |= _distillation(owner, keys, settings)
    return made


def _rows(settings: dict[str, Any]) -> list[str]:
    """The models that settings are of; an empty name for those of another run."""
    named = settings.get("model") or ""
    return [row.strip() for row in (named.split(",") if isinstance(named, str) else named)] or [""]


def _owners(key: str, rows: list[str]) -> list[str]:
    """What stands before the new name of a key without a model's name; nothing in a run, of its model alone."""
    bases = list(dict.fromkeys(row.partition("@")[0] for row in rows))
    if len(rows) == 1:
        return [""] if bases[0] in ("", *_OWNERS[key]) else []
    return [f"{base}." for base in bases if base in _OWNERS[key]]


def _is_own(row: str) -> bool:
    """Whether a row is of a user's model."""
    name = row.partition("@")[0]
    recboles = recbole_folder() / "properties" / "model" / f"{name}.yaml"
    return bool(name) and f"model/{name}" not in PAGES and name not in ("Pop", "Random") and not recboles.is_file()


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
    before = f"{prefix}." if prefix else ""
    content = settings.get(f"{before}content") or settings.get("content") or "bert"
    both = {f"{before}content_llm_dir", f"{before}content_bert_dir"} <= settings.keys()
    return both and key != f"content_{'llm' if content == 'llm' else 'bert'}_dir"


def _distillation(owner: str, keys: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What ``distill``, ``reduction`` and ``norm_power`` said, with the keys there are now."""
    terms = keys.get("distill")
    made: dict[str, Any] = {f"{owner}distill_{term}": 0.0 for term in _TERMS if terms is not None and term not in terms}
    published = ["distillation_sum"] if keys.get("reduction") == "sum" else []
    published += ["distillation_norm"] if keys.get("norm_power") == 1 else []
    given = settings.get(f"{owner}reference", settings.get("reference"))
    if published or given is True:
        names = _OF_THE_HLLM_CODE if given is True else [given] if isinstance(given, str) else list(given or [])
        made[f"{owner}reference"] = [*names, *published]
    return made
