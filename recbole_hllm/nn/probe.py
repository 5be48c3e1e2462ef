"""What kind of language model one is, found by trying: a small random copy reads, and its outputs are compared.

Neither a name nor a flag of a configuration says for certain whether a model sees what follows, whether padding changes
what it makes of the rest, or how many positions it has.
"""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import first_layers, quiet, without_gpu
from recbole_hllm.nn.packing import PACKED, Packing
from recbole_hllm.nn.words import word_embeddings

# Sizes that decide how long the copy takes and nothing of what is asked of it, and what the copy has at most.
_SMALLER = dict.fromkeys(
    ("vocab_size", "intermediate_size", "moe_intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size"), 64
)
_LAYERS = 2
# Names that configurations have for the number of positions; how many the copy has, and how many of them a model may
# keep for itself.
_POSITION_KEYS = ("max_position_embeddings", "max_seq_len", "n_positions")
_POSITIONS, _RESERVED = 32, 8
# Vectors that are read, and those after them that change.
_READ, _BEHIND = 6, 3
# Differences up to this part of the largest output are rounding.
_ROUNDING = 1e-4
# Keys with which some bidirectional models are causal.
_SWITCHES = {"is_decoder": True, "attn_type": "uni", "causal": True, "use_bidirectional_attention": False}


@dataclass(frozen=True)
class Behaviour:
    """What a language model without head does with vectors in place of words."""

    causal: bool
    """No output depends on what comes after it."""
    hides_padding: bool
    """Padding on the right changes no output before it; under an attention mask, which a causal model does without."""
    n_positions: int | None
    """The most vectors that it reads; None: no limit."""
    input_size: int
    """Width of the vectors that it reads."""
    output_size: int
    """Width of its outputs."""
    reads_words: bool
    """The vectors of words, in their place, are read as the words are."""


def behaviour_of(model: PreTrainedModel) -> Behaviour:
    """Tries the architecture of a model, whose weights are not looked at: it may be on the device ``meta``.

    Random numbers that others draw stay the same.

    Raises:
        ModelError: it reads no vectors in place of words.
    """
    return _tried(_architecture(model, model.config))


def is_bidirectional(model: PreTrainedModel) -> bool:
    """True for one whose outputs also depend on what comes after them, as those of an encoder of BERT's type.

    Raises:
        ModelError: as ``behaviour_of``.
    """
    return not behaviour_of(model).causal


def check_causal(model: PreTrainedModel, purpose: str) -> None:
    """For a model that predicts what follows.

    Args:
        purpose: what it is for, for the error, such as "read histories".

    Raises:
        ModelError: it sees what follows.
    """
    if behaviour_of(model).causal:
        return
    switch = _switch_to_causal(model)
    raise ModelError(
        f"a {model.config.model_type} model cannot {purpose}: it is bidirectional and would see what it has to "
        f"predict; take a causal one, such as llama{f', or set {switch} in its configuration' if switch else ''}"
    )


def check_padding(model: PreTrainedModel) -> None:
    """Raises ModelError for one that reads a text otherwise beside a longer one."""
    if not behaviour_of(model).hides_padding:
        raise ModelError(
            f"a {model.config.model_type} model of this configuration makes something else of a text when padding "
            "follows it, so an item's vector would depend on the items beside it; take another language model"
        )


def check_reads_words(model: PreTrainedModel) -> None:
    """Raises ModelError for one that reads the vectors of words otherwise than the words."""
    if not behaviour_of(model).reads_words:
        raise ModelError(
            f"a {model.config.model_type} model cannot read vectors in place of words, as items are read here; take "
            "another language model, such as llama or bert"
        )


def position_range(model: PreTrainedModel) -> tuple[int, int | None]:
    """The first usable position id and how many positions there are.

    RoBERTa-type models start after their padding id. Rotary and other computed positions have no limit (None).

    Raises:
        ModelError: as ``behaviour_of``.
    """
    limit = behaviour_of(model).n_positions
    tables = (part for name, part in model.named_modules() if "position" in name.rpartition(".")[2] or "wpe" in name)
    paddings = [part.padding_idx for part in tables if isinstance(part, nn.Embedding) and part.padding_idx is not None]
    return (paddings[0] + 1 if paddings and limit is not None else 0), limit


def reads_packed(model: PreTrainedModel) -> bool:
    """Whether it reads texts one after the other, without padding, as it reads each alone: see `packing`. Models whose
    attention has biases, a window or a code of its own do not."""
    return _packs(_architecture(model, model.config))


def _switch_to_causal(model: PreTrainedModel) -> str | None:
    """The key of its configuration, and the value, with which a bidirectional model would be causal."""
    for key, value in _SWITCHES.items():
        if getattr(model.config, key, value) != value:
            changed = copy.deepcopy(model.config)
            setattr(changed, key, value)
            try:
                if _tried(_architecture(model, changed)).causal:
                    return f"{key}: {value}"
            except ModelError:  # a configuration that allows no such model
                continue
    return None


# ---- trying ----


def _architecture(model: PreTrainedModel, config: PreTrainedConfig) -> "_Architecture":
    attention = without_gpu(getattr(config, "_attn_implementation", None))
    return _Architecture(type(model), config.to_json_string(use_diff=False), attention, config)


@dataclass(frozen=True)
class _Architecture:
    """What is tried: a class and a configuration, which has no hash but its text."""

    kind: type[PreTrainedModel]
    text: str
    attention: str | None
    config: PreTrainedConfig = field(compare=False)


@functools.lru_cache(maxsize=256)
def _tried(architecture: _Architecture) -> Behaviour:
    for smaller in (_SMALLER, {}):  # an architecture may not have these sizes
        with _trying():
            try:
                return _behaviour(_small_copy(architecture, smaller), architecture.config)
            except Exception as error:  # transformers' models fail in ways of their own
                failed = error
    reason, kind = " ".join(str(failed).split()) or type(failed).__name__, architecture.config.model_type
    raise ModelError(
        f"a {kind} model of this configuration cannot read vectors in place of words: {reason}"
    ) from failed


@contextmanager
def _trying() -> Iterator[None]:
    """On a CPU, without gradients or messages; numbers that others draw stay the same."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad(), quiet():
        torch.default_generator.manual_seed(0)  # torch.manual_seed is also for GPUs, whose states nobody puts back
        yield


@functools.lru_cache(maxsize=256)
def _packs(architecture: _Architecture) -> bool:
    with _trying():
        try:
            alone = _small_copy(architecture, _SMALLER)
            packed = _small_copy(replace(architecture, attention=PACKED), _SMALLER)
            packed.load_state_dict(alone.state_dict())
            return _reads_packed(alone, packed)
        except Exception:  # of transformers' models, which fail in ways of their own, and of `packed_attention`
            return False


def _reads_packed(alone: PreTrainedModel, packed: PreTrainedModel) -> bool:
    first, second = (torch.randn(1, length, word_embeddings(alone).weight.shape[1]) for length in (_READ, _BEHIND))
    start = position_range(alone)[0]
    hidden = packed(
        inputs_embeds=torch.cat([first, second], 1),
        position_ids=start + torch.cat([torch.arange(_READ), torch.arange(_BEHIND)])[None],
        **Packing.of(torch.tensor([_READ, _BEHIND])).options(packed),
    ).last_hidden_state
    expected = [alone(inputs_embeds=text).last_hidden_state for text in (first, second)]
    return _alike(torch.cat(expected, 1), hidden)


def _small_copy(architecture: _Architecture, smaller: dict[str, int]) -> PreTrainedModel:
    small = copy.deepcopy(architecture.config)
    if _number(small, "num_hidden_layers") > _LAYERS:  # code that a folder brings may have another name for it
        first_layers(small, _LAYERS)
    for name, most in smaller.items():
        if _number(small, name) > most:
            setattr(small, name, most)
    for name in ("pad_token_id", "padding_idx"):
        if _number(small, name) >= _number(small, "vocab_size"):
            setattr(small, name, 0)
    if key := _position_key(small):  # RoBERTa types keep those up to their padding id
        setattr(small, key, _POSITIONS + _number(small, "pad_token_id"))
    options = {"attn_implementation": architecture.attention} if architecture.attention else {}
    model = architecture.kind._from_config(small, dtype=torch.float32, **options).eval()
    for part in model.modules():  # the usual weights are so small that little of one place reaches another
        if isinstance(part, nn.Linear) and part.weight.requires_grad:
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
    return model


def _number(config: PreTrainedConfig, name: str) -> int:
    """0 where there is none."""
    number = getattr(config, name, None)
    return number if isinstance(number, int) else 0


def _position_key(config: PreTrainedConfig) -> str | None:
    return next((name for name in _POSITION_KEYS if _number(config, name) > 0), None)  # XLNet has -1


def _behaviour(small: PreTrainedModel, config: PreTrainedConfig) -> Behaviour:
    width = word_embeddings(small).weight.shape[1]
    vectors = torch.randn(3, _READ + _BEHIND, width)
    vectors[1:, :_READ] = vectors[0, :_READ]
    vectors[2, _READ:] *= 10

    def read(some: Tensor, masked: bool) -> Tensor:
        mask = (torch.arange(some.shape[1]) < _READ).long().expand(len(some), -1)
        options: dict[str, Any] = {"attention_mask": mask} if masked else {"use_cache": False}
        return small(inputs_embeds=some.clone(), **options).last_hidden_state[:, :_READ]  # CTRL writes into its input

    outputs = read(vectors, masked=False)
    causal = all(_alike(outputs[0], row) for row in outputs[1:])
    alone, padded = read(vectors[:1, :_READ], not causal), read(vectors, not causal)
    return Behaviour(
        causal,
        all(_alike(alone[0], row) for row in padded),
        _n_positions(small, config, width),
        width,
        outputs.shape[-1],
        _reads_words(small),
    )


def _reads_words(small: PreTrainedModel) -> bool:
    words = word_embeddings(small)
    # RoBERTa gives padding no position of its own.
    padding = {getattr(small.config, "pad_token_id", None), getattr(words, "padding_idx", None)}
    tokens = torch.tensor([[token for token in range(min(len(words.weight), 4)) if token not in padding][:2]])
    try:
        expected = small(input_ids=tokens).last_hidden_state[0]
        return _alike(expected, small(inputs_embeds=words(tokens)).last_hidden_state[0])
    except Exception:  # I-BERT's words have scales beside vectors
        return False


def _alike(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= _ROUNDING * first.abs().max())


def _n_positions(small: PreTrainedModel, config: PreTrainedConfig, width: int) -> int | None:
    name = _position_key(small.config)
    if name is None:
        return None
    most = _number(small.config, name)
    for length in range(most + 1, most - _RESERVED - _number(small.config, "pad_token_id"), -1):
        if _reads(small, length, width):
            return None if length > most else _number(config, name) - most + length
    return None


def _reads(model: PreTrainedModel, length: int, width: int) -> bool:
    try:
        model(inputs_embeds=torch.zeros(1, length, width))
        return True
    except (IndexError, RuntimeError, ValueError):  # how tables and buffers say that they end
        return False
