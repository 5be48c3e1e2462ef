"""Recommenders of others: a class given by its place or registered, or one of an installed package."""

import inspect
from pathlib import Path

from recbole.model.abstract_recommender import AbstractRecommender

from recbole_hllm.doors import Door, place_of
from recbole_hllm.errors import ConfigError

MODELS = Door("model", {}, group="recbole_hllm.models")
_registered: dict[str, type[AbstractRecommender]] = {}
_PACKAGES = ("recbole", "recbole_hllm", "torch", "abc", "builtins")


def register(model: type, taken: tuple[str, ...]) -> None:
    """Makes a class known by its name, for this process.

    Args:
        taken: names of other models.

    Raises:
        ConfigError: it is no recommender, or its name is taken.
    """
    if not (isinstance(model, type) and issubclass(model, AbstractRecommender)):
        raise ConfigError(
            f"model: {getattr(model, '__name__', model)} is not a RecBole recommender: derive the class from "
            "SequentialRecommender, GeneralRecommender or ContextRecommender of recbole.model.abstract_recommender"
        )
    name, there = model.__name__, _registered.get(model.__name__, model)
    if name in taken or place_of(there) != place_of(model):
        other = "RecBole or this package" if name in taken else place_of(there)
        raise ConfigError(f"model: there is a model named '{name}' already, of {other}; rename {place_of(model)}")
    _registered[name] = model


def find(name: str) -> type[AbstractRecommender] | None:
    """The class of a model of others; None where there is none of that name.

    Raises:
        ConfigError: an installed package adds it, and it cannot be imported.
    """
    if name in _registered or name not in MODELS:
        return _registered.get(name)
    model = MODELS.load(name)
    if getattr(model, "__name__", None) != name:
        raise ConfigError(f"model: {MODELS.installed()[name].value} must have the name of its entry point, '{name}'")
    register(model, ())
    return model


def names() -> tuple[str, ...]:
    """Names of the models of others that are registered or installed."""
    return tuple(dict.fromkeys((*_registered, *MODELS)))


def registered() -> list[type[AbstractRecommender]]:
    """Classes that were given by place or registered."""
    return [model for name, model in _registered.items() if name not in MODELS]


def is_own(cls: type) -> bool:
    """Whether a class is neither RecBole's, nor of this package, nor what these are built on."""
    return cls.__module__.partition(".")[0] not in _PACKAGES


def own_property_file(model: type) -> Path | None:
    """The YAML file with the keys of a class of others, beside its module; None where there is none."""
    if not is_own(model):
        return None
    try:
        file = Path(inspect.getfile(model)).with_name(f"{model.__name__}.yaml")
    except (OSError, TypeError):  # of a notebook
        return None
    return file if file.is_file() else None
