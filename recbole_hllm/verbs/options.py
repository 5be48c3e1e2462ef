"""Options of a verb that has its own, not keys of a run."""

from typing import Any

from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.verbs.line import parse_arguments


def read_options(words: list[str], usage: str, places: int, defaults: dict[str, Any]) -> tuple[list[str], Any]:
    """The words of a verb: those at its begin, and its options.

    Args:
        words: after the verb.
        usage: of the verb, which begins with it.
        places: how many words come first.
        defaults: name -> value of each option, or its type where there is no default. A value of the command line is
            read as one of the same type.

    Returns:
        The first words, and name -> value of every option; None for those that have neither value nor default.

    Raises:
        ConfigError: a word is missing, there is no such option, or a value cannot be read.
    """
    verb = usage.split()[0]
    first, rest = words[:places], words[places:]
    if len(first) < places or any(word.startswith("-") for word in first):
        raise ConfigError(f"{verb}: write recbole-hllm {usage}")
    options = {name: None if isinstance(default, type) else default for name, default in defaults.items()}
    for name, value in parse_arguments(rest).items():
        if name not in defaults:
            raise ConfigError(f"{verb}: there is no --{name}{did_you_mean(name, defaults)}")
        default = defaults[name]
        options[name] = _read(f"{verb}: --{name}", value, default if isinstance(default, type) else type(default))
    return first, options


def _read(name: str, value: str, kind: type) -> Any:
    if kind is bool:
        if value not in ("True", "False"):
            raise ConfigError(f"{name}: {value!r} is neither True nor False")
        return value == "True"
    if kind is str and value == "True":
        raise ConfigError(f"{name} needs a value")
    try:
        return kind(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {value!r} is no {'whole number' if kind is int else 'number'}") from error
