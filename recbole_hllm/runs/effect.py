"""Warnings of keys that are known and given, but that nothing reads in this run."""

import inspect
import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from recbole.utils import FeatureType, ModelType

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.recbole import OptimisationKeys
from recbole_hllm.config.keys.run import ScheduleKeys
from recbole_hllm.config.keys.user_items import scores_histories
from recbole_hllm.config.nested import COLUMN_LISTS
from recbole_hllm.config.parsing import looked_up, read_yaml
from recbole_hllm.config.places import properties_folder, recbole_folder
from recbole_hllm.data.files.float_columns import reads_numbers
from recbole_hllm.data.files.formats import find_table, read_header
from recbole_hllm.data.labels import reads_labels
from recbole_hllm.data.negatives import unread_parts
from recbole_hllm.errors import UserError, did_you_mean
from recbole_hllm.own_models import is_own
from recbole_hllm.registry import base_model, property_files
from recbole_hllm.runs.prerequisites import keys_of_needed

_PICKLES = ("checkpoint_dir", "save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")
# Keys that RecBole has for all models and that nothing reads here, those of knowledge graphs above all. Some are read
# by single models, in whose code they are found.
_UNREAD = {
    "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD", "kg_reverse_r",
    "entity_kg_num_interval", "relation_kg_num_interval", "alias_of_entity_id", "alias_of_relation_id",
    "preload_weight", "POSITION_FIELD", "RATING_FIELD", "require_pow",
}  # fmt: skip
_OF_TABLES = {"ratios_to", "compare_to", "compare_test", "seeds_for", "show_recommendations"}
# Read by RecBole's data set, not named in its files.
_FURTHER = {"model", "dataset", "encoding", "stopping_step"}
_FEATURES = ("numerical_features", "discretization", "normalize_field", "normalize_all")
_LABELS = ("threshold", "LABEL_FIELD")
_OPTIMISATION = (*OptimisationKeys.keys, *ScheduleKeys.keys)
_HISTORIES = ("MAX_ITEM_LIST_LENGTH", "ITEM_LIST_LENGTH_FIELD")


def tell_of_run(config: Config) -> None:
    """Warns of keys and columns without effect on a run, in one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for key, why in without_effect(config).items():
        reasons.setdefault(why, []).append(key)
    for why, keys in reasons.items():
        _warn(f"{', '.join(keys)} without effect: {why}")
    for line in (*_unread_negatives(config), *unread_columns(config)):
        _warn(line)


def tell_of_table(configs: dict[str, Any], given: Collection[str]) -> None:
    """Warns of keys without effect on any row of a table, and of those given for one row that does not read them.

    Args:
        configs: row name -> its config.
        given: keys of the table, ``<Model>.<key>`` included.
    """
    unread = {row: without_effect(config) for row, config in configs.items()}
    for key in [key for key in given if key not in _OF_TABLES]:
        owner, dot, name = key.rpartition(".")
        rows = [row for row in configs if not dot or owner in (row, base_model(row))]
        if rows and all(name in unread[row] for row in rows):
            why = unread[rows[0]][name] if dot else "no model of this table reads it"
            _warn(f"{key} without effect: {why}")
    lines = (line for config in configs.values() for line in (*_unread_negatives(config), *unread_columns(config)))
    for line in dict.fromkeys(lines):
        _warn(line)


def _unread_negatives(config: Config) -> list[str]:
    parts = unread_parts(config["model"], config.spec, config["train_neg_sample_args"])
    return [f"train_neg_sample_args: {part} without effect: {why}" for part, why in parts.items()]


def _warn(line: str) -> None:
    logging.getLogger().warning(line)


# ---- keys ----


def without_effect(config: Config) -> dict[str, str]:
    """Keys given with another value than their default that nothing reads in this run, each with the reason.

    A switch that is off asks for nothing. Keys of a run that is made for this one are checked with that run.
    """
    default, model = config.internal_config_dict.get, config.spec.model
    given = [
        key for key, value in config.external_config_dict.items()
        if value not in (None, default(key)) and (value is not False or default(key) is not None)
    ]  # fmt: skip
    # mypy takes a class that is an argument for one of its objects.
    why, read = _reasons(config), _read_by_all() | _read_by(model) | keys_of_needed(config)  # type: ignore[arg-type]
    if config.spec.rows.labelled:
        read |= read_yaml(properties_folder() / "labelled.yaml").keys()
    read |= model.further_keys(config)
    return {
        key: why.get(key, f"{config['model']} reads no such key") for key in given if key in why or key not in read
    }


def _reasons(config: Config) -> dict[str, str]:
    """Keys that other keys, or the kind of model, take the effect from."""
    model, rows, name = config.spec.model, config.spec.rows, config["model"]
    why = dict.fromkeys(_PICKLES, "everything of a run is in its folder, and nothing is pickled")
    if not reads_labels(config):
        why |= dict.fromkeys(_LABELS, f"{name} reads no labels; val_interval: {{'rating': '[4,inf)'}} would keep only "
                             "interactions with such ratings")  # fmt: skip
    if rows.labelled:
        why["topk"] = f"{name} scores labelled rows and ranks nothing"
    if not reads_numbers(config):
        why |= dict.fromkeys(_FEATURES, f"{name} reads no numbers of users, items and interactions")
    if not rows.reads_history:
        how = "reads histories whole" if scores_histories(config) else "reads no histories"
        why |= dict.fromkeys(_HISTORIES, f"{name} {how}")
    if model.type == ModelType.TRADITIONAL:
        why |= dict.fromkeys(_OPTIMISATION, f"{name} counts and is not trained")
    if config["scheduler"] != "cosine":
        why.setdefault("warmup_ratio", f"scheduler is {config['scheduler']}")
    if not config["log_wandb"]:
        why["wandb_project"] = "log_wandb is off"
    if not config["enable_amp"]:
        why["enable_scaler"] = "enable_amp is off"
    if config.external_config_dict.get("valid_metric_bigger") != config["valid_metric_bigger"]:
        why["valid_metric_bigger"] = f"whether more is better is known of {config['valid_metric']}"
    own = Path(str(config.external_config_dict.get("data_path")), "ml-100k")
    if config["dataset"] == "ml-100k" and any(own.glob("ml-100k.*")):
        why["data_path"] = "ml-100k comes with RecBole and is read from there; give your own files another name"
    return why


@lru_cache(maxsize=1)
def _read_by_all() -> frozenset[str]:
    from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

    files = [recbole_folder() / "properties" / name for name in ("overall.yaml", "dataset/sample.yaml")]
    of_files = [read_yaml(file).keys() for file in (*files, properties_folder() / "overall.yaml")]
    keys = _FURTHER.union(general_arguments, training_arguments, evaluation_arguments, dataset_arguments, *of_files)
    return frozenset(keys - _UNREAD - _OF_TABLES)


@lru_cache
def _read_by(model: type) -> frozenset[str]:
    """Keys of a model's property files, and those that its code looks up."""
    keys = {key for file in property_files(model) for key in read_yaml(file)}
    for ancestor in model.__mro__:
        if ancestor.__module__.startswith("recbole") or is_own(ancestor):
            # One module holds the ancestors of all RecBole's models.
            alone = ancestor.__module__.endswith("abstract_recommender")
            with suppress(OSError, TypeError):  # a class of a notebook
                part: Any = ancestor if alone else inspect.getmodule(ancestor)
                keys |= looked_up(inspect.getsource(part))
    return frozenset(keys)


# ---- columns ----


def unread_columns(config: Config) -> list[str]:
    """What to say of columns that keys name and no file has, and of numbers that a model does not read."""
    headers = _headers(config)
    if not headers:
        return []
    there, lines = set().union(*headers.values()), []
    for key in ("load_col", "unload_col", "unused_col"):
        for file, columns in (config.external_config_dict.get(key) or {}).items():
            missing = [] if columns == "*" or file not in headers else [c for c in columns if c not in headers[file]]
            lines += _missing(f"{key}: {file}", missing, headers[file]) if missing else []
    for key in (*COLUMN_LISTS, "seq_len"):
        missing = [column for column in config.external_config_dict.get(key) or () if column not in there]
        lines += _missing(key, missing, there) if missing else []
    return lines + _unread_numbers(config, headers)


def _missing(key: str, columns: Iterable[str], there: Collection[str]) -> list[str]:
    return [f"{key}: there is no column '{column}'{did_you_mean(column, there)}" for column in columns]


def _headers(config: Config) -> dict[str, dict[str, Any]]:
    """The columns of each of the data set's files; none where one cannot be read, which is an error when it is."""
    names = config["benchmark_filename"]
    inter = f"{names[0]}.inter" if isinstance(names, list) and names else "inter"
    headers = {}
    for kind, suffix in (("inter", inter), ("user", "user"), ("item", "item")):
        try:
            path = find_table(Path(config["data_path"]) / f"{config['dataset']}.{suffix}")
            if path.exists():
                headers[kind] = read_header(path, config["field_separator"], config["encoding"])
        except UserError:
            return {}
    return headers


def _unread_numbers(config: Config, headers: dict[str, dict[str, Any]]) -> list[str]:
    """Float columns are features of RecBole's models only where ``numerical_features`` names them."""
    if not reads_numbers(config):
        return []
    keys = ("TIME_FIELD", "LABEL_FIELD", "RATING_FIELD")
    other = {*(config[key] for key in keys), *(config["threshold"] or ()), *(config["val_interval"] or ())}
    other |= {*config["numerical_features"], *(config["selected_features"] or ())}
    unread = [
        column for kind, header in headers.items() for column in _loaded(config, kind, header)
        if header[column] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ) and column not in other
    ]  # fmt: skip
    what = f"numbers are loaded and not read by {config['model']}; name them in numerical_features, or load others only"
    return [f"{', '.join(unread)}: these {what}"] if unread else []


def _loaded(config: Config, kind: str, header: Mapping[str, Any]) -> list[str]:
    load, unload = config["load_col"], (config["unload_col"] or {}).get(kind, ())
    columns = header if load is None or load.get(kind) == "*" else load.get(kind, ())
    return [column for column in header if column in columns and column not in unload]
