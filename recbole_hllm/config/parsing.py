"""Keys and values of a config: how files and words of the command line are read, and which keys anybody reads."""

import ast
import os
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import recbole_hllm.config.keys.pages  # noqa: F401, it declares every key
from recbole_hllm.config.places import properties_folder, recbole_folder
from recbole_hllm.config.schema import DECLARED
from recbole_hllm.doors import is_place
from recbole_hllm.errors import ConfigError

# What stands for no value, where it is the whole value of a key or of a part of one.
_NO_VALUE = ("None", "null", "Null", "NULL")
# The same, but for keys whose value is written into texts.
_NO_VALUE_BUT_WRITTEN = ("", "~")
# Chosen by the data and by other keys where they are empty, though RecBole's models have a default for them.
_CHOSEN_IF_EMPTY = {"selected_features", "item_attribute", "train_neg_sample_args"}
# Before the name of another row of the same table, in the place of its run's folder.
ROW = "row:"
# Instructions for bf16, as torch names them: of x86, and of ARM.
_CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
# What `precision` may be beside auto, and the type that autocast computes in.
AUTOCAST_DTYPES: dict[str | None, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def fast_precision(device: torch.device) -> str:
    """``bf16`` where the GPU or the CPU has instructions for it; emulated it is slower than ``fp32``."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch has none
    return "bf16" if any(capabilities.get(name) for name in _CPU_BF16) else "fp32"


def chosen_precision(given: str | None, device: torch.device, model: str, autocasts: bool) -> str | None:
    """The value of ``precision`` with ``auto`` in words.

    Args:
        given: None is fp32.
        model: its name.
        autocasts: it can compute in another one than fp32.

    Raises:
        ConfigError: it cannot, and another one was given.
    """
    if given == "auto":
        return fast_precision(device) if autocasts else "fp32"
    if not autocasts and given not in (None, "fp32"):
        raise ConfigError(
            f"precision: {model} has products or sums that torch does not do in {given}; give fp32 or "
            f"auto, in a table {model}.precision"
        )
    return given


# ---- values ----


class YamlLoader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as RecBole's property files expect, and never builds Python objects."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


@lru_cache(maxsize=256)
def _parsed(text: str, name: str) -> Any:
    """Parsing is slow, and every Config reads the same property files; whoever changes the content copies it."""
    stream = StringIO(text)
    stream.name = name  # for errors
    return yaml.load(stream, Loader=YamlLoader)


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Reads a YAML mapping.

    Raises:
        ConfigError: no such file, not YAML (names the line), or not a mapping.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            content = deepcopy(_parsed(stream.read(), str(file)))
    except OSError as error:
        raise ConfigError(f"config file {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a day such as 2024-02-31
        raise ConfigError(f"config file {file} is not readable YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"config file {file}: expected 'key: value' lines, found a {type(content).__name__}")
    _refuse_code(file, content)
    return {str(key): value for key, value in content.items()}


def _refuse_code(file: str | Path, content: dict[Any, Any]) -> None:
    """A file has names only: what it is given as may have been sent by somebody."""
    for key in ("model", "metrics"):
        value = content.get(key)
        names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
        for name in names:
            if is_place(str(name).partition("@")[0].strip()):
                raise ConfigError(
                    f"config file {file}: {key}: {name}: a file must not name code to import: write the class's name, "
                    f"and give --imports={name} (in Python register_model, register_metric)"
                )


def parse_value(value: Any, key: str = "") -> Any:
    """A string of the command line as the Python literal it spells, or the string itself; never evaluated.

    Args:
        value: anything; only strings are read.
        key: the key it belongs to; the text of an ``item_prompt`` or a ``dataset`` stays text.
    """
    if not isinstance(value, str):
        return value
    if value in ("None", "null"):
        return None
    if _is_text(key):
        return value
    words = {"true": True, "false": False, "~": None}
    if value.lower() in words:
        return words[value.lower()]
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return _words(value, key)
    return literal if isinstance(literal, (str, int, float, list, tuple, dict)) else value


def from_file(value: Any, key: str) -> Any:
    """The value of a key in a YAML file, in plain types; None, null, ~ and nothing are the same, also inside dicts."""
    return plain(_none_where_empty(value, key), key)


def from_words(value: Any, key: str) -> Any:
    """The value of a key in a dict or on a command line, read as one of a file is."""
    return from_file(parse_value(value, key), key)


def _words(value: str, key: str) -> Any:
    """``[row:HLLM, row:SASRec]`` as the list of words that it is in a YAML file, where the key is a list of words."""
    one = DECLARED.get(key.rpartition(".")[2])
    if one is None or one.item is not str or value[:1] + value[-1:] != "[]":
        return value
    return [word.strip() for word in value[1:-1].split(",")]


def _is_text(key: str) -> bool:
    one = DECLARED.get(key.rpartition(".")[2])
    return one is not None and one.is_text


def _none_where_empty(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _none_where_empty(part, str(name)) for name, part in value.items()}
    one = DECLARED.get(key.rpartition(".")[2])
    written = one is not None and one.written
    empty = isinstance(value, str) and (value in _NO_VALUE or (value in _NO_VALUE_BUT_WRITTEN and not written))
    return None if empty else value


def plain(value: Any, key: str) -> Any:
    """A copy of a value in the types that a YAML file has."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple) and _is_text(key):
        return str(value)  # an interval (5, 10) keeps its brackets
    if isinstance(value, dict):
        return {plain(name, key): plain(item, key) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, key) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ConfigError(f"{key}: {value!r} is a {type(value).__name__}; give text, numbers, lists or dicts")


def as_default(key: str, value: Any, default: Any) -> Any:
    """A value in the type of the key's default, where the default has one and the schema does not know the key. An
    empty one is an empty text, where that is the default: RecBole's models ask for its length.

    Raises:
        ConfigError: it cannot be that type.
    """
    if default is None or key in DECLARED:
        return value
    if value is None:
        return "" if default == "" else None
    if isinstance(default, bool):
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        raise ConfigError(f"{key}: {value!r} is neither True nor False")
    if isinstance(default, (int, float)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{key}: {value!r} is not a number")
        return int(value) if isinstance(default, int) and value == value // 1 else value
    return value


def refuse_empty(values: Mapping[str, Any], defaults: Mapping[str, Any], model: str) -> None:
    """What is a number by default must be one, and what RecBole's model has a default for must be something.

    Raises:
        ConfigError: a key is empty that must not be.
    """
    file = recbole_folder() / "properties" / "model" / f"{model}.yaml"
    theirs = read_yaml(file) if file.is_file() else {}
    own = {key for key, default in theirs.items() if str(default) not in _NO_VALUE} - _CHOSEN_IF_EMPTY
    for key, default in defaults.items():
        number = isinstance(default, (int, float)) and not isinstance(default, bool) and key not in DECLARED
        if values[key] is None and default is not None and not isinstance(default, bool) and (key in own or number):
            raise ConfigError(f"{key} must not be empty")


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
