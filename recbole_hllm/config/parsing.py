"""Keys and values of a config: how files and words of the command line are read, and which keys anybody reads."""

import ast
import os
import re
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml

from recbole_hllm.config.places import properties_folder, recbole_folder
from recbole_hllm.errors import ConfigError

# Keys whose value is text even where it reads like a number, a list or a word in quotes.
_TEXT_KEYS = {
    "model", "dataset", "data_path", "gpu_id", "user_inter_num_interval", "item_inter_num_interval", "cache_dir",
    "item_pretrain_dir", "user_pretrain_dir", "pretrained_hllm", "item_prompt",
    "tokenizer_dir", "history_prompt", "prompt_separator",
    "content_llm_dir", "content_bert_dir", "preference_dir", "learn",
    "pretrained_learn",
    "item_table", "pretrained_e4srec", "llm_pretrain_dir", "instruction", "teacher", "text_separator", "text_field",
    "reranker_CAN_NUM",
    "valid_metric",
}  # fmt: skip
# What stands for no value, where it is the whole value of a key or of a part of one.
_NO_VALUE = ("None", "null", "Null", "NULL")
# The same, but for keys whose value is written into texts.
_NO_VALUE_BUT_WRITTEN = ("", "~")
_WRITTEN = ("item_prompt", "history_prompt", "prompt_separator", "text_separator", "text_field")
_NEVER_EMPTY = (
    "data_path", "eval_args", "metrics", "topk", "valid_metric", "mask_history", "learner", "field_separator",
    "USER_ID_FIELD", "ITEM_ID_FIELD", "LABEL_FIELD", "LIST_SUFFIX", "NEG_PREFIX", "ITEM_LIST_LENGTH_FIELD",
)  # fmt: skip
# Chosen by the data and by other keys where they are empty, though RecBole's models have a default for them.
_CHOSEN_IF_EMPTY = {"selected_features", "train_neg_sample_args"}
# Keys that are True, False or names.
_SWITCHES_OR_NAMES = ("reference", "sanity_rows")
# Before the name of another row of the same table, in the place of its run's folder.
ROW = "row:"
# Instructions for bf16, as torch names them: of x86, and of ARM.
_CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
# What `precision` may be beside auto, and the type that autocast computes in.
AUTOCAST_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def fast_precision(device: torch.device) -> str:
    """``bf16`` where the GPU or the CPU has instructions for it; emulated it is slower than ``fp32``."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch does not tell
    return "bf16" if any(capabilities.get(name) for name in _CPU_BF16) else "fp32"


class Number(NamedTuple):
    """Which numbers a key takes.

    Attributes:
        kind: int for whole numbers, float for any.
        least, most: bounds, which are allowed themselves.
        empty: None is allowed too.
        several: a list of them is allowed too.
    """

    kind: type
    least: float = -inf
    most: float = inf
    empty: bool = False
    several: bool = False


# Keys whose numbers would fail later, in the middle of a run, or silently mean something else.
NUMBERS = {
    "seed": Number(int, 0, 2**32 - 1),
    "worker": Number(int, 0),
    "trials": Number(int, 1, empty=True),
    "epochs": Number(int, 0),
    "train_batch_size": Number(int, 1),
    "eval_batch_size": Number(int, 1),
    "eval_step": Number(int),  # 0 and below: no validation
    "stopping_step": Number(float, 0),  # infinite: never
    "learning_rate": Number(float, 0),
    "weight_decay": Number(float, 0),
    "warmup_ratio": Number(float),
    "max_training_minutes": Number(float, 0, empty=True),
    "topk": Number(int, 1, several=True),
    "tail_ratio": Number(float, 0, empty=True),
    "metric_decimal_place": Number(int),
    "loss_decimal_place": Number(int, 0),
    "item_llm_layers": Number(int, 1, empty=True),
    "train_user_fraction": Number(float, 0, 1),
    "train_min_items": Number(int, 1, empty=True),
    "train_first_items": Number(int, 2, empty=True),
    "time_num": Number(int, 0),
    "time_width": Number(int, 1),
    "user_llm_layers": Number(int, 1, empty=True),
    "item_emb_token_n": Number(int, 0, 1, empty=True),
    "lora_r": Number(int, 1),
    "lora_alpha": Number(float, 0),
    "lora_dropout": Number(float, 0, 1),
    "item_llm_dropout": Number(float, 0, 1, empty=True),
    "input_dropout": Number(float, 0, 1),
    "item_learning_rate": Number(float, 0, empty=True),
    "num_negatives": Number(int, 1, empty=True),
    "MAX_TEXT_LENGTH": Number(int, 1),
    "MAX_PROMPT_LENGTH": Number(int, 1),
    "item_chunk_tokens": Number(int, 1, empty=True),
    "loss_lambda": Number(float, 0),
    "candidates_per_batch": Number(int, 1),
    "knn_history": Number(int, 1, empty=True),
    "segments_user": Number(int, 1, several=True),
    "segments_item": Number(int, 1, several=True),
    "temperature": Number(float, 1e-3, empty=True),
    "nce_thres": Number(float, -1, 1, empty=True),
    "min_surviving_negatives": Number(float, 0, empty=True),
    "n_layers": Number(int, 0),
    "n_heads": Number(int, 1),
    "hidden_size": Number(int, 1),
    "inner_size": Number(int, 1),
    "hidden_dropout_prob": Number(float, 0, 1),
    "attn_dropout_prob": Number(float, 0, 1),
    "item_embed_dim": Number(int, 1),
    "llm_layers": Number(int, 1, empty=True),
    "blocks": Number(int, 1),
    "distill_cos": Number(float, 0),
    "distill_norm": Number(float, 0),
    "distill_heads": Number(float, 0),
    "norm_power": Number(int, 1, 2),
    "content_dim": Number(int, 1),
    "dropout": Number(float, 0, 1),
    "fusion_weight": Number(float, 0),
    "content_layers": Number(int, 1, empty=True),
    "preference_layers": Number(int, 1, empty=True),
    "output_size": Number(int, 1),
    "target_length": Number(int, 1),
    "history_days": Number(float, 1e-6),
    "target_days": Number(float, 1e-6),
    "history_samples": Number(int, 1, empty=True),
    "target_samples": Number(int, 1, empty=True),
    "recency_alpha": Number(float, 1.001),
    "recency_beta": Number(float, 1.001),
}


# ---- values ----


class YamlLoader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as RecBole's property files expect, and never builds Python objects."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(file: str | Path) -> dict:
    """Reads a YAML mapping.

    Raises:
        ConfigError: no such file, not YAML (names the line), or not a mapping.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            content = yaml.load(stream, Loader=YamlLoader)
    except OSError as error:
        raise ConfigError(f"config file {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a day such as 2024-02-31
        raise ConfigError(f"config file {file} is not readable YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"config file {file}: expected 'key: value' lines, found a {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def parse_value(value, key: str = ""):
    """A string of the command line as the Python literal it spells, or the string itself; never evaluated.

    Args:
        value: anything; only strings are read.
        key: the key it belongs to; the text of an ``item_prompt`` or a ``dataset`` stays text.
    """
    if not isinstance(value, str):
        return value
    if value in ("None", "null"):
        return None
    if key.rpartition(".")[2] in _TEXT_KEYS:
        return value
    words = {"true": True, "false": False, "~": None}
    if value.lower() in words:
        return words[value.lower()]
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return literal if isinstance(literal, (str, int, float, list, tuple, dict)) else value


def from_file(value, key: str):
    """The value of a key in a YAML file, in plain types; None, null, ~ and nothing are the same, also inside dicts."""
    return plain(_none_where_empty(value, key), key)


def from_words(value, key: str):
    """The value of a key in a dict or on a command line, read as one of a file is."""
    return from_file(parse_value(value, key), key)


def _none_where_empty(value, key):
    if isinstance(value, dict):
        return {name: _none_where_empty(part, str(name)) for name, part in value.items()}
    written = key.rpartition(".")[2] in _WRITTEN
    empty = isinstance(value, str) and (value in _NO_VALUE or (value in _NO_VALUE_BUT_WRITTEN and not written))
    return None if empty else value


def plain(value, key):
    """A copy of a value in the types that a YAML file has."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple) and key.rpartition(".")[2] in _TEXT_KEYS:
        return str(value)  # an interval (5, 10) keeps its brackets
    if isinstance(value, dict):
        return {plain(name, key): plain(item, key) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, key) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ConfigError(f"{key}: {value!r} is a {type(value).__name__}; give text, numbers, lists or dicts")


def as_default(key, value, default):
    """A value in the type of the key's default, where the default tells it.

    Raises:
        ConfigError: it cannot be that type.
    """
    if value is not None and key in _TEXT_KEYS:
        return str(value)
    if value is None or default is None or key in _SWITCHES_OR_NAMES:
        return value
    if isinstance(default, bool):
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        raise ConfigError(f"{key}: {value!r} is neither True nor False")
    if isinstance(default, (int, float)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{key}: {value!r} is not a number")
        return int(value) if isinstance(default, int) and value == value // 1 else value
    return value


def refuse_empty(values: dict, defaults: dict, model: str) -> None:
    """What is a number by default must be one, and what RecBole's model has a default for must be something.

    Raises:
        ConfigError: a key is empty that must not be.
    """
    file = recbole_folder() / "properties" / "model" / f"{model}.yaml"
    own = read_yaml(file).keys() - _CHOSEN_IF_EMPTY if file.is_file() else set()
    may_be = {key for key, allowed in NUMBERS.items() if allowed.empty}
    for key, default in defaults.items():
        needed = key in own or (isinstance(default, (int, float)) and key not in may_be)
        missing = values[key] is None and default is not None and not isinstance(default, bool) and needed
        if missing or (key in _NEVER_EMPTY and values[key] in (None, "", [], {})):
            raise ConfigError(f"{key} must not be empty")


def as_number(key, value):
    """A value that the table ``NUMBERS`` allows its key, whole numbers as int; other keys' values as they are.

    Raises:
        ConfigError: it is empty, no number, no whole number or out of bounds.
    """
    allowed = NUMBERS.get(key)
    if allowed is None or (value is None and allowed.empty):
        return value
    if allowed.several and isinstance(value, list):
        return [_number(key, one, allowed) for one in value]
    return _number(key, value, allowed)


def _number(key, value, allowed):
    if value is None:
        raise ConfigError(f"{key} must not be empty")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{key}: {value!r} is not a number")
    if allowed.kind is int and value % 1 != 0:
        raise ConfigError(f"{key}: {value!r} is not a whole number")
    if not value >= allowed.least:
        raise ConfigError(f"{key}: {value!r} must be at least {allowed.least}")
    if value > allowed.most:
        raise ConfigError(f"{key}: {value!r} must be at most {allowed.most}")
    return int(value) if allowed.kind is int else value


# ---- keys ----


@lru_cache(maxsize=1)
def listed_keys() -> frozenset[str]:
    """Every key of RecBole's argument lists and of any property file, RecBole's or ours."""
    from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

    keys = {"model", "dataset", *general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments}
    for file in [*recbole_folder().glob("properties/**/*.yaml"), *properties_folder().glob("**/*.yaml")]:
        if file.stem not in ("url", "kg_url"):
            keys |= {key.split(".", 1)[-1] for key in read_yaml(file)}
    return frozenset(keys)


@lru_cache(maxsize=1)
def keys_read_by_recbole() -> frozenset[str]:
    """Every key that RecBole's code looks up in a config, found in its source; read only for unlisted keys."""
    files = recbole_folder().glob("**/*.py")
    return frozenset().union(*(looked_up(file.read_text(encoding="utf-8")) for file in files))


def looked_up(source: str) -> set[str]:
    """Keys that a program's text looks up in a config."""
    return set(re.findall(r"""config(?:_dict)?(?:\[|\.get\()\s*["']([A-Za-z_]\w*)["']""", source))
