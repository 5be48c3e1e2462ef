"""DeepSpeed's settings: a JSON file of the user's whose "auto" is filled from the keys, or made from the keys alone."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.storage.files import read_json

AUTO = "auto"
# Sections of what the keys decide alone -> what to use in their place.
_OF_KEYS = {
    "scheduler": "scheduler and warmup_ratio",
    "fp16": "precision and weights",
    "amp": "precision",
    "torch_autocast": "precision",
}
# Sections and values that the keys fill.
_FILLED = (
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping",
    "bf16", "zero_optimization", "optimizer",
)  # fmt: skip
_ALIKE = 0.85  # two names, one of which is the other with a mistake
# Values of the run's Adam and AdamW that no key changes.
_OF_ADAM = {"betas": [0.9, 0.999], "eps": 1e-8}
_STAGES = range(4)


def deepspeed_settings(settings: RunKeys, world_size: int) -> dict[str, Any]:
    """What ``deepspeed.initialize`` gets.

    Args:
        settings: the keys of the run.
        world_size: processes.

    Raises:
        ConfigError: the file of ``deepspeed_config`` cannot be read, contradicts the keys, or has what the keys decide.
    """
    given = _read(settings.deepspeed_config) if settings.deepspeed_config else {}
    _check_names(given)
    for section, keys in _OF_KEYS.items():
        if _wanted(given.pop(section, None)):
            raise ConfigError(f"deepspeed_config: {section}: use the keys {keys}, and leave it out")
    of_keys = _of_keys(settings, given)
    for path, value in of_keys.items():
        _fill(given, path, value)
    _check_batch(settings, given, world_size)
    given.pop("optimizer", None)  # the run's own is handed over
    return {
        **_without_auto(given),
        "train_micro_batch_size_per_gpu": max(settings.train_batch_size // world_size, 1),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def _check_names(given: Iterable[str]) -> None:
    """DeepSpeed passes over a section that it does not know, and over bfloat16 where there is bf16."""
    known = (*_FILLED, *_OF_KEYS)
    for name in given:
        alike = ["bf16"] if name == "bfloat16" else get_close_matches(name, known, 1, _ALIKE)
        if name not in known and alike:
            raise ConfigError(f"deepspeed_config: {name} would have no effect; write {alike[0]}")


def _of_keys(settings: RunKeys, given: dict[str, Any]) -> dict[str, Any]:
    """Place in DeepSpeed's settings -> the value that the keys give it."""
    zero = given.get("zero_optimization")
    stage = zero.get("stage", AUTO) if isinstance(zero, dict) else AUTO
    stage = (2 if stage == AUTO else stage) if settings.stage is None else settings.stage
    if isinstance(stage, bool) or stage not in _STAGES:
        raise ConfigError(f"deepspeed_config: zero_optimization.stage is {stage!r}, and there are 0, 1, 2 and 3")
    clip = settings.clip_grad_norm or {}
    found: dict[str, Any] = {
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "gradient_clipping": float(clip.get("max_norm", 0.0)),
        "bf16.enabled": settings.weights == "bf16",
        "zero_optimization.stage": stage,
    }
    if settings.offload:
        found["zero_optimization.offload_optimizer.device"] = "cpu"
        if stage == 3:
            found["zero_optimization.offload_param.device"] = "cpu"
    if "optimizer" in given:
        found |= _of_optimizer(settings, given["optimizer"])
    return found


def _of_optimizer(settings: RunKeys, given: Any) -> dict[str, Any]:
    """The run's own optimizer is handed over: what the file says of one is checked alone."""
    known: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    wanted = given.get("params") if isinstance(given, dict) else None
    for name, value in wanted.items() if isinstance(wanted, dict) else ():
        if name in _OF_ADAM and settings.learner.lower() in ("adam", "adamw"):
            known[name] = _OF_ADAM[name]
        elif name not in (*known, "torch_adam") and value != AUTO:
            raise ConfigError(
                f"deepspeed_config: optimizer.params.{name}: the optimizer is torch's {settings.learner} of the keys "
                "learner, learning_rate and weight_decay; leave it out"
            )
    return {"optimizer.type": settings.learner, **{f"optimizer.params.{name}": known[name] for name in known}}


def _fill(given: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        given = given.setdefault(section, {})
        if not isinstance(given, dict):
            raise ConfigError(f"deepspeed_config: {path}: {section} is {given!r}, not a section")
    found = given.setdefault(name, value)
    if found == AUTO:
        given[name] = value
    elif not _same(found, value):
        raise ConfigError(
            f"deepspeed_config: {path} is {found!r}, and the keys make it {value!r}; write \"auto\" in the file, or "
            "leave it out"
        )


def _same(found: Any, value: Any) -> bool:
    if isinstance(found, str) and isinstance(value, str):
        return found.lower() == value.lower()
    return bool(found == value)


def _check_batch(settings: RunKeys, given: dict[str, Any], world_size: int) -> None:
    """The batch of all processes is train_batch_size; DeepSpeed's two numbers for it are checked and dropped: batches
    at the end are smaller, and a process may have a row less than another."""
    whole = settings.train_batch_size * settings.gradient_accumulation_steps
    for name, value in (
        ("train_batch_size", whole),
        ("train_micro_batch_size_per_gpu", settings.train_batch_size / world_size),
    ):
        found = given.pop(name, AUTO)
        if found not in (AUTO, value):
            raise ConfigError(
                f"deepspeed_config: {name} is {found!r}, and train_batch_size: {settings.train_batch_size}, the rows "
                f"of all {world_size} processes, makes it {value:g}; write \"auto\" in the file, or leave it out"
            )


def _wanted(section: Any) -> bool:
    enabled = section.get("enabled", True) if isinstance(section, dict) else section
    return enabled not in (None, False, AUTO, "None")


def _without_auto(value: Any) -> Any:
    """Without what is still "auto": DeepSpeed's own defaults."""
    if not isinstance(value, dict):
        return value
    return {name: _without_auto(part) for name, part in value.items() if part != AUTO}


def _read(path: str) -> dict[str, Any]:
    try:
        content = read_json(Path(path).expanduser())
    except ModelError as error:
        raise ConfigError(f"deepspeed_config: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"deepspeed_config: {path} is not a JSON object")
    return content

