"""Sanity rows: models that train nothing, in every table, so that it shows what a trained model must beat."""

from typing import Any

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.baselines import FrozenLLMKeys
from recbole_hllm.config.keys.language_models import ItemTextKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError, UserError, did_you_mean
from recbole_hllm.registry import base_model

SANITY_MODELS = ("Pop", "Markov", "TextKNN")
# How HLLM reads items, and TextKNN with it.
_READING = (*FrozenLLMKeys.keys, *(key for key in ItemTextKeys.keys if key not in RunKeys.keys))


def with_sanity_rows(models: list[str], keys: dict[str, Any]) -> tuple[list[str], dict[str, Any], dict[str, str]]:
    """Adds the rows that ``sanity_rows`` asks for after the models of a table, none of them twice.

    Args:
        models: names of the models asked for.
        keys: keys and values of the table, ``<Model>.<key>`` included.

    Returns:
        All models; the keys with those that sanity rows need; and why a row was left out, by name.

    Raises:
        ConfigError: a wrong key, or a name in ``sanity_rows`` that is none of ``SANITY_MODELS``.
    """
    config = Config(models[0], config_dict=keys)
    # They rank whole catalogues and give no probability of a label.
    asked = [] if config.spec.rows.labelled else _names(config["sanity_rows"])
    added = [name for name in SANITY_MODELS if name in asked and name not in models]
    models, derived, left_out = [*models, *added], {}, {}
    if "HLLM" in map(base_model, models) and "TextKNN" in models:
        derived = {f"TextKNN.{key}": keys[f"HLLM.{key}"] for key in _READING if f"HLLM.{key}" in keys}
    if keys.get("MAX_ITEM_LIST_LENGTH_TEST") is not None:  # of the models named; these know one length only
        derived |= {f"{name}.MAX_ITEM_LIST_LENGTH_TEST": None for name in added}
    if "Pop" in added and "train_neg_sample_args" in keys:  # Pop would count negatives too
        derived["Pop.train_neg_sample_args"] = None
    keys = {**derived, **keys}
    if "TextKNN" in added and (reason := _lacking("TextKNN", keys)):
        left_out = {"TextKNN": reason}
        models.remove("TextKNN")
    return models, keys, left_out


def _names(value: Any) -> list[str]:
    """The sanity rows that a value of the key stands for."""
    if value is None or isinstance(value, bool):
        return list(SANITY_MODELS if value else ())
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        raise ConfigError(f"sanity_rows: {value!r} is neither True, False nor a list of {', '.join(SANITY_MODELS)}")
    for name in names:
        if name not in SANITY_MODELS:
            near = did_you_mean(str(name), SANITY_MODELS)
            raise ConfigError(f"sanity_rows: '{name}' is not one of {', '.join(SANITY_MODELS)}{near}")
    return list(names)


def _lacking(model: str, keys: dict[str, Any]) -> str | None:
    """Why this data set, or this installation, has no row of a model; None where it has."""
    config = Config(model, config_dict=keys)
    try:
        config.spec.model.check_files(config)
    except UserError as error:
        return str(error)
    return None
