"""Language models from a hub id, a folder, a GGUF file or an installed package, without any head.

Everything a recommender asks of a language model before it has its own layers: where it lies, how it starts
(pretrained or from scratch), and how many of its layers are kept. What kind of model it is, `probe` finds.
"""

import copy
import functools
import importlib.util
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as hf_logging

from recbole_hllm.errors import MissingExtra, ModelError, did_you_mean
from recbole_hllm.nn.adapters import refuse_adapter

# Before it had one, transformers 5 always unpacked GGUF weights.
GGUF_CONFIG = getattr(transformers, "GgufConfig", None)
AutoClass = type[AutoModel] | type[AutoModelForCausalLM] | type[AutoModelForTextEncoding]

SOURCE_FORMS = "a folder, a .gguf file, 'package:NAME/PATH' in an installed package, or a Hugging Face hub id"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
# Encoder-decoders whose encoder is a language model of its own: of a whole folder the decoder is left out.
ENCODERS_OF_PAIRS = ("t5", "mt5", "umt5")


@dataclass(frozen=True)
class BackboneSpec:
    """Which language model to use and how it starts.

    Raises:
        ModelError: if the fields contradict each other.
    """

    source: str | None
    """Hub id, folder, path of a .gguf file, or ``package:NAME/PATH`` inside an installed package."""
    init: str = "pretrained"
    """``pretrained`` loads the weights, ``scratch`` draws them at random."""
    num_layers: int | None = None
    """Keep the first k layers only; None keeps all."""
    layers_key: str = "num_layers"
    """The key that the user sets them with, for errors."""
    config: Mapping[str, Any] | None = None
    """With ``scratch``: keys of the model's configuration, over those of `source` if there is one."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, layer by layer, to save memory."""
    attn_implementation: str | None = None
    """``eager``, ``sdpa``, ``flash_attention_2`` or ``flex_attention``; None: transformers chooses."""
    trust_remote_code: bool = False
    """Allow the source to bring its own Python code, which then runs on this machine."""

    def __post_init__(self) -> None:
        if self.init not in ("pretrained", "scratch"):
            raise ModelError(f"init={self.init!r}: a language model starts 'pretrained' or from 'scratch'")
        if self.init == "pretrained" and self.source is None:
            raise ModelError(f"a pretrained language model needs a source: {SOURCE_FORMS}")
        if self.init == "pretrained" and self.config:
            raise ModelError("config: pretrained weights fix its keys; change them with init='scratch'")
        if self.source is None and "model_type" not in (self.config or {}):
            raise ModelError("a language model without a source needs config with a model_type, e.g. llama")
        if self.num_layers is not None and self.num_layers < 1:
            raise ModelError(f"{self.layers_key}: {self.num_layers}: at least one layer must be kept")


def resolve_source(source: str) -> tuple[str, str | None]:
    """Finds where a language model lies.

    Returns:
        the folder or hub id, and the name of the GGUF file in that folder or None.

    Raises:
        ModelError: if a package, folder or file is missing.
    """
    if source.startswith("package:"):
        path = _inside_package(source)
    else:
        path = Path(source).expanduser()
        if not path.exists() and HUB_ID.fullmatch(source) and path.suffix != ".gguf":
            return source, None
    if path.is_dir():
        return str(path), None
    if path.is_file() and path.suffix == ".gguf":
        return str(path.parent), path.name
    if path.is_file():
        raise ModelError(f"language model '{source}': {path} is not a .gguf file; give {SOURCE_FORMS}")
    raise ModelError(f"language model '{source}': {path} does not exist; give {SOURCE_FORMS}")


def _inside_package(source: str) -> Path:
    name, _, path = source.removeprefix("package:").partition("/")
    try:
        spec = importlib.util.find_spec(name) if name else None
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"language model '{source}': the package '{name}' is not installed: "
            f"pip install {name.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations))) / path


def load_backbone(spec: BackboneSpec) -> PreTrainedModel:
    """Builds a language model without head or pooler, in float32 and in training mode.

    Returns:
        the transformers model; its last hidden state is taken after the final norm.

    Raises:
        ModelError: if the source, its configuration or its weights cannot be used.
        MissingExtra: if the source is a GGUF file and the packages that read it are not installed.
    """
    model = _load(spec)
    if getattr(model, "pooler", None) is not None:
        model.pooler = nn.Identity()  # SqueezeBERT calls it without asking
    return model


def load_causal_lm(spec: BackboneSpec) -> PreTrainedModel:
    """Builds a causal language model with the head over its vocabulary, in float32 and in training mode.

    Raises:
        ModelError, MissingExtra: as ``load_backbone``; also if the weights have no head.
    """
    return _load(spec, AutoModelForCausalLM)


def _load(spec: BackboneSpec, kind: AutoClass | None = None) -> PreTrainedModel:
    folder, gguf_file = _place_of(spec)
    with _errors_name(spec.source), quiet(gguf_file):
        config = _config_of(spec, folder, gguf_file)
        kind = kind or _without_head(config)
        options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": spec.trust_remote_code}
        if spec.attn_implementation is not None:
            options["attn_implementation"] = spec.attn_implementation
        if spec.init == "scratch" or folder is None:
            model = kind.from_config(config, **options)
        else:
            model = _load_weights(folder, gguf_file, config, options, kind)
        if spec.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def config_of(spec: BackboneSpec) -> PreTrainedConfig:
    """The configuration of what ``load_backbone`` would build, without its weights.

    Raises:
        ModelError, MissingExtra: as ``load_backbone``, for what the weights have no part in.
    """
    folder, gguf_file = _place_of(spec)
    with _errors_name(spec.source), quiet(gguf_file):
        return _config_of(spec, folder, gguf_file)


def skeleton_of(spec: BackboneSpec, whole: bool = False) -> PreTrainedModel | None:
    """The first layers, without numbers, of what ``load_backbone`` would build: it shows what kind of model that is, in
    a moment. None for a source that brings its own code, of which nobody knows whether it could do this.

    Args:
        whole: all layers.

    Raises:
        ModelError, MissingExtra: as ``config_of``.
    """
    config = config_of(spec)
    if spec.trust_remote_code:
        return None
    if not whole:  # RWKV divides by the number of the others
        config = config_of(replace(spec, num_layers=min(config.num_hidden_layers, 2)))
    with _errors_name(spec.source), quiet(), torch.device("meta"):
        return _without_head(config).from_config(config)


def load_tokenizer(source: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Loads the fast tokenizer that belongs to a language model.

    Raises:
        ModelError: if the source has no tokenizer, or only one without a fast implementation.
        MissingExtra: if the source is a GGUF file and the packages that read it are not installed.
    """
    folder, gguf_file = _located(source)
    no_tokenizer = (
        f"LLM folder without tokenizer: '{source}' holds no usable tokenizer files "
        "(tokenizer.json, or the files it can be made from)"
    )
    if not gguf_file and Path(folder).is_dir() and not _mentions_tokenizer(Path(folder)):
        refuse_adapter(folder, source)
        raise ModelError(no_tokenizer)
    with _errors_name(source), quiet(gguf_file):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, gguf_file=gguf_file, trust_remote_code=trust_remote_code
        )
    # transformers makes up an empty tokenizer where files are missing: special tokens and nothing else
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ModelError(no_tokenizer)
    if not tokenizer.is_fast:
        raise ModelError(f"'{source}' has only a slow tokenizer; a fast one (tokenizer.json) is needed")
    return tokenizer


def without_gpu(attention: str | None) -> str | None:
    """The attention implementation with which a model is tried on a CPU, where flash attention does not run."""
    return attention if attention in (None, "sdpa") else "eager"


def _place_of(spec: BackboneSpec) -> tuple[str | None, str | None]:
    return (None, None) if spec.source is None else _located(spec.source)


def _located(source: str) -> tuple[str, str | None]:
    folder, gguf_file = resolve_source(source)
    for package in ("gguf", "accelerate") if gguf_file else ():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "gguf", f"reading the GGUF file '{source}'")
    return folder, gguf_file


def _config_of(spec: BackboneSpec, folder: str | None, gguf_file: str | None) -> PreTrainedConfig:
    config = _model_config(spec, folder, gguf_file)
    _check_architecture(config, spec.source)
    _check_depth(config, spec)
    if spec.num_layers is not None:
        first_layers(config, spec.num_layers)
    return config


def _model_config(spec: BackboneSpec, folder: str | None, gguf_file: str | None) -> PreTrainedConfig:
    """The configuration of the source, with the keys of `spec.config` over it."""
    changes = dict(spec.config or {})
    stored: dict[str, Any] = {}
    if folder is None or spec.source is None:
        model_type = changes.pop("model_type")
        if model_type not in CONFIG_MAPPING:
            raise ModelError(f"config: unknown model_type '{model_type}'{did_you_mean(model_type, CONFIG_MAPPING)}")
        config_class = CONFIG_MAPPING[model_type]
        known = config_class()
    else:
        if spec.init == "pretrained" and not gguf_file:
            refuse_adapter(folder, spec.source)
        if Path(folder).is_dir() and not gguf_file and not (Path(folder) / "config.json").is_file():
            raise ModelError(f"language model '{spec.source}': the folder has no config.json")
        known = _known_config(folder, gguf_file, spec.trust_remote_code)
        if not changes:
            return known
        # built again, not changed in place, so that derived values (head size, layer types) follow the changes
        config_class = type(known)
        stored, _ = PreTrainedConfig.get_config_dict(folder, gguf_file=gguf_file)
        if changes.pop("model_type", known.model_type) != known.model_type:
            raise ModelError(f"config: model_type of '{spec.source}' is {known.model_type}, it cannot change")
    for key in changes:
        if not hasattr(known, key):
            nearest = did_you_mean(key, known.to_dict())
            raise ModelError(f"config: a {known.model_type} model has no key '{key}'{nearest}")
    return config_class(**{**stored, **changes})


def _known_config(folder: str, gguf_file: str | None, trust_remote_code: bool) -> PreTrainedConfig:
    if not gguf_file:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    place = Path(folder).resolve()
    return copy.deepcopy(_config_in_gguf(str(place), gguf_file, (place / gguf_file).stat().st_mtime_ns))


@functools.cache
def _config_in_gguf(folder: str, gguf_file: str, changed: int) -> PreTrainedConfig:
    """Read once, which takes seconds, until the file is ``changed``."""
    return AutoConfig.from_pretrained(folder, gguf_file=gguf_file)


def _without_head(config: PreTrainedConfig) -> AutoClass:
    return AutoModelForTextEncoding if config.model_type in ENCODERS_OF_PAIRS else AutoModel


def _check_architecture(config: PreTrainedConfig, source: str | None) -> None:
    if getattr(config, "is_encoder_decoder", False) and config.model_type not in ENCODERS_OF_PAIRS:
        raise ModelError(
            f"language model '{source}' is an encoder-decoder ({config.model_type}); "
            "use a causal language model, or an encoder of the type of BERT or T5 for items"
        )
    without_layers = config.model_type in CONFIG_MAPPING and not hasattr(config, "num_hidden_layers")  # of images, say
    if config.get_text_config() is not config or without_layers:
        raise ModelError(f"language model '{source}' is not text only ({config.model_type})")


def _check_depth(config: PreTrainedConfig, spec: BackboneSpec) -> None:
    if spec.num_layers is not None and spec.num_layers > config.num_hidden_layers:
        of = f" '{spec.source}'" if spec.source else ""
        has = f"has only {config.num_hidden_layers} layers"
        raise ModelError(f"{spec.layers_key}: {spec.num_layers}, but the language model{of} {has}")


def first_layers(config: PreTrainedConfig, number: int) -> None:
    """Makes a configuration, in place, that of the first layers of its model."""
    total = config.num_hidden_layers
    for name, value in list(vars(config).items()):
        by_layer = "layer" in name or name == "attention_window"  # Longformer's
        if by_layer and isinstance(value, list | tuple) and len(value) == total:
            setattr(config, name, value[:number])
    if hasattr(config, "scale_depth"):  # MiniCPM's layers add scale_depth / sqrt(number of layers) of what they compute
        config.scale_depth *= math.sqrt(number / total)
    if shared := getattr(config, "num_kv_shared_layers", None):  # the last of Gemma 3n's; those that are cut go first
        config.num_kv_shared_layers = max(0, shared - (total - number))
    config.num_hidden_layers = number


def _load_weights(
    folder: str, gguf_file: str | None, config: PreTrainedConfig, options: dict[str, Any], kind: AutoClass
) -> PreTrainedModel:
    unpack = {"quantization_config": GGUF_CONFIG(dequantize=True)} if gguf_file and GGUF_CONFIG else {}
    loaded: Any = kind.from_pretrained(  # a pair, with loading info; declared as the model alone
        folder, config=config, gguf_file=gguf_file, output_loading_info=True, **unpack, **options
    )
    model, report = loaded
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelError(
            f"the weights of language model '{folder}' are incomplete: {len(missing)} are missing ({shown}); "
            "get the whole model again, or use init='scratch'"
        )
    if not gguf_file:
        return model
    # a model read from GGUF stays marked as quantised, which forbids casting, training and saving it
    plain = kind.from_config(config, **options)
    plain.load_state_dict(model.state_dict())
    return plain


def _mentions_tokenizer(folder: Path) -> bool:
    names = (path.name for path in folder.iterdir())
    return any(re.search(r"^tokenizer\.|^vocab|^merges|\.model$|\.tiktoken$|^tekken", name) for name in names)


@contextmanager
def _errors_name(source: str | None) -> Iterator[None]:
    """Turns whatever transformers raises into an error for the user that names the source."""
    try:
        yield
    except (ModelError, MissingExtra):
        raise
    except Exception as error:  # transformers, the hub, safetensors and gguf raise kinds of their own
        reason = " ".join(str(error).split()) or type(error).__name__  # in one line
        if source is None:
            raise ModelError(f"the language model cannot be built from its config: {reason}") from error
        on_hub = not source.startswith("package:") and not Path(source).expanduser().exists()
        if on_hub and isinstance(error, OSError):
            raise ModelError(
                f"language model '{source}' is neither a local folder nor reachable on the hub; "
                f"give {SOURCE_FORMS}. {reason}"
            ) from error
        raise ModelError(f"language model '{source}' cannot be loaded: {reason}") from error


@contextmanager
def quiet(gguf_file: str | None = None) -> Iterator[None]:
    """Keeps transformers' load report, progress bars and announcements off the screen.

    The reader of GGUF files draws a bar that no setting turns off.
    """
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()) if gguf_file else nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
