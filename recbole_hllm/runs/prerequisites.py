"""Runs that a model needs before its own: E4SRec a SASRec, SLMRec its teacher, LEARNRanker a LEARN."""

import logging
import re
from collections.abc import Callable, Set
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.learn import ContentKeys
from recbole_hllm.config.keys.recbole import DataKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.parsing import ROW, read_yaml
from recbole_hllm.config.renamed import read_saved
from recbole_hllm.config.scopes import INHERITED, SOURCES, WITHOUT_WEIGHT
from recbole_hllm.data.files.formats import files_of, parts_of
from recbole_hllm.data.loader import check_sizes, data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import NeedsRuns, ReadsRuns
from recbole_hllm.processes import current
from recbole_hllm.runs.folder import saved_keys
from recbole_hllm.storage.cache import cache_folder, digest, file_digest, held_by, locked

_LIMIT = "max_training_minutes"
# Values of the key `content` that read texts.
_OF_TEXTS = ("llm", "bert")
# RecBole's lists of keys that say what the data are and how they are evaluated.
_OWN_KINDS = ("General", "Evaluation", "Dataset")


def complete(config: Config, run_dir: str | Path | None, run: Callable[..., Any]) -> None:
    """Sets, in the config, each key that names a run which has to come first.

    A key that is empty stands for a run that is made now, in the folder of the cache, and found there the next time;
    so does one that names such a run of a cache that was deleted. ``row:NAME`` is the row NAME of the table that this
    run is a row of. One that was interrupted goes on.

    Args:
        run_dir: folder of the run that needs them.
        run: starts one: ``run(config_dict, run_dir)``.

    Raises:
        UserError: a row that is not there, or whatever is wrong with the run to be made.
    """
    model, dataset = config.spec.model, RunKeys.of(config).dataset
    if not issubclass(model, ReadsRuns):
        return
    model.check_keys(config)
    if not issubclass(model, NeedsRuns):
        _name_folders(config, run_dir)
        return
    if to_be_made(config):
        _rehearse(config)
    for key, (needed, keys) in model.needs(config).items():
        given = config[key]
        if not str(given or "").startswith(ROW):
            _tell_keys_of_it(config, key, needed, keys)
        if given and str(given).startswith(ROW):
            found = _row(key, str(given), run_dir)
        elif given and not _deleted(Path(given), needed, dataset):
            found = given
            if _kept(given, needed, dataset):
                _tell_if_made_otherwise(config, key, needed, keys, given, run_dir)
            else:
                _tell_what_is_not_read(config, key, needed, given)
        else:
            found = _made(config, key, needed, keys, run, run_dir)
        _tell_of_texts(config, key, Path(found).expanduser())
        _set(config, key, str(Path(found).expanduser().absolute()))
        if made_like := model.made_like(Path(config[key])):
            _set(config, f"{key}_keys", made_like)


def needed_runs(config: Config) -> dict[str, tuple[str, dict[str, Any]]]:
    """Key -> model and keys of each run that the model is built on; none for most models."""
    model = config.spec.model
    return model.needs(config) if issubclass(model, NeedsRuns) else {}


def named_rows(config: Config) -> list[tuple[str, str]]:
    """Key and row of each row of the same table that a run's keys name, ``row:NAME``."""
    model = config.spec.model
    keys = model.run_keys(config) if issubclass(model, ReadsRuns) else ()
    named = [(key, str(value)) for key in keys for value in _listed(config[key])]
    return [(key, value.removeprefix(ROW)) for key, value in named if value.startswith(ROW)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _name_folders(config: Config, run_dir: str | Path | None) -> None:
    """Sets the folder of each run that keys name, in full; what is no folder, a language model say, stays as it is."""

    def found(key: str, value: Any) -> str:
        folder = Path(value).expanduser()
        if str(value).startswith(ROW):
            folder = _row(key, str(value), run_dir)
        return str(folder.absolute()) if folder.is_dir() else str(value)

    for key in config.spec.model.run_keys(config):
        folders = [found(key, value) for value in _listed(config[key])]
        if folders:
            _set(config, key, folders if isinstance(config[key], list) else folders[0])


def _rehearse(config: Config) -> None:
    """Builds the model, without weights, on the data: what is wrong with either is known before anything is trained."""
    logging.disable(logging.WARNING)  # the run itself will say the same
    try:
        train, *evaluated = data_preparation(config, create_dataset(config))
        check_sizes(config, train, *evaluated)
        config.spec.outline(config, train._dataset)
    finally:
        logging.disable(logging.NOTSET)


def to_be_made(config: Config) -> list[tuple[str, str]]:
    """(key, model) of each run that ``complete`` would make, in that order.

    Raises:
        UserError: as ``complete``.
    """
    model, dataset = config.spec.model, RunKeys.of(config).dataset
    missing: list[tuple[str, str]] = []
    if not issubclass(model, NeedsRuns):
        return missing
    model.check_keys(config)
    for key, (needed, keys) in model.needs(config).items():
        given = config[key]
        if given and (str(given).startswith(ROW) or not _deleted(Path(given), needed, dataset)):
            continue
        if any(str(value).startswith(ROW) for value in _inherited(config, needed).values()):
            missing.append((key, needed))  # from a row to come, so that it cannot be there
            continue
        folder, made = _folder_of(config, key, needed, keys, None)
        if not (folder / "costs.json").is_file():
            missing += [*to_be_made(made), (key, needed)]
    return missing


def _defaults(model: str, config: Config) -> Config:
    """Of another model on the same files."""
    of_files = DataKeys.keys.keys() - {"model"}
    return Config(model, config_dict={key: value for key, value in config.settings.items() if key in of_files})


def _set(config: Config, key: str, value: Any) -> None:
    config.final_config_dict[key] = config.settings[key] = value


def _kept(given: Any, needed: str, dataset: str) -> bool:
    """Whether a folder is named as those that are made here."""
    return re.fullmatch(f"{needed}-{re.escape(dataset)}-[0-9a-f]{{24}}", Path(given).name) is not None


def _deleted(given: Path, needed: str, dataset: str) -> bool:
    return _kept(given, needed, dataset) and not given.exists()


def _tell_if_made_otherwise(
    config: Config, key: str, needed: str, keys: dict[str, Any], given: Any, run_dir: str | Path | None
) -> None:
    """One made here stands in the ``config.yaml`` of the run it was made for; other keys there do not change it."""
    try:
        file = Path(given) / "config.yaml"
        limit = read_yaml(file).get(_LIMIT) if file.is_file() else None
        expected = _folder_of(config, key, needed, keys, run_dir, limit)[0].name
    except ConfigError:  # a row of a table that is not made: then it was named on purpose
        return
    if expected != Path(given).name:
        logging.getLogger().warning(
            f"{key}: {given} is not the {needed} that this run's keys, seed and data would make: {key}_keys and what "
            f"it would share with this run have no effect on it; --{key}=None makes another"
        )


def keys_of_needed(config: Config) -> Set[str]:
    """Keys of the prerequisite runs, and those that they share with this one; ``complete`` warns of them."""
    keys = [_defaults(name, config).internal_config_dict.keys() for name, _ in needed_runs(config).values()]
    return INHERITED.union(*keys) if keys else set()


def _tell_keys_of_it(config: Config, key: str, needed: str, keys: dict[str, Any]) -> None:
    """Keys of the prerequisite run, given as if they were this one's, would be read by nothing."""
    own = config.internal_config_dict.keys() | config.spec.model.further_keys(config)
    theirs = _defaults(needed, config)
    given = config.external_config_dict
    kept = config[f"{key}_keys"] or {}  # of a run that is repeated, all that it was made with
    others = given.keys() - own - INHERITED - {name for name in kept if kept[name] == given.get(name)}
    names = [name for name in theirs.internal_config_dict if name in others]
    if names:
        settable = [name for name in names if name not in keys or name in kept]
        why = f"keys of the {needed}, not of {RunKeys.of(config).model}"
        if config[key]:
            why += f", and {key} names a run that is trained already"
        elif settable:
            example = f"{{'{settable[0]}': {given[settable[0]]!r}}}"
            why += f'; its own are given in {key}_keys, such as --{key}_keys="{example}"'
        logging.getLogger().warning(f"{', '.join(names)} without effect: {why}")
    if not config[key]:
        for further, (model, its_keys) in needed_runs(theirs).items():
            if further in config.internal_config_dict and not config[further]:
                _tell_keys_of_it(config, further, model, its_keys)


def _tell_of_texts(config: Config, key: str, found: Path) -> None:
    """What is read of the items is settled in a run that is trained."""
    there = read_saved(found / "config.yaml") if (found / "config.yaml").is_file() else {}
    given = config.external_config_dict.get("text_keys")
    if there.get("content") in _OF_TEXTS and given not in (None, there.get("text_keys")):
        logging.getLogger().warning(
            f"text_keys: {given!r} has no effect on {found}, which {key} names and which was trained on "
            f"{there.get('text_keys') or 'every text column'}"
        )


def _tell_what_is_not_read(config: Config, key: str, needed: str, given: Any) -> None:
    """A run that the user names was made with keys of its own; those here that would make one say nothing."""
    made = _defaults(needed, config)
    further = needed_runs(made) if issubclass(config.spec.model, made.spec.model) else {}
    file = Path(given).expanduser() / "config.yaml"
    there = read_saved(file) if file.is_file() else {}
    for name in (f"{key}_keys", *further, *(f"{name}_keys" for name in further)):
        if _says_otherwise(config, name, there):
            logging.getLogger().warning(f"{name} has no effect: {key} names a run that is trained already")


def _says_otherwise(config: Config, name: Any, there: dict[str, Any]) -> bool:
    """Whether a key is given, and not what the run of the keys ``there`` was made with."""
    given = config[name]
    if given in (None, config.internal_config_dict.get(name)):
        return False
    return not isinstance(given, dict) or any(there.get(key) != value for key, value in given.items())


def _row(key: str, given: str, run_dir: str | Path | None) -> Path:
    if not run_dir:
        raise ConfigError(f"{key}: {given} is for a row of a table, and this run is not one; name a folder")
    own = Path(run_dir).absolute()
    with_seed = re.fullmatch(r"seed-\d+", own.name)  # a run of a row that has one for each seed
    folder = (own.parent.parent if with_seed else own.parent) / given.removeprefix(ROW)
    if with_seed and (folder / own.name).is_dir():
        folder /= own.name
    if not (folder / "costs.json").is_file():
        raise ConfigError(
            f"{key}: {given}: {folder} is not a finished run; the rows of a table run in order, so this row "
            "must come earlier, and must not have failed; in a search, name a folder"
        )
    return folder


def _made(
    config: Config,
    key: str,
    needed: str,
    keys: dict[str, Any],
    run: Callable[..., dict[str, Any]],
    run_dir: str | Path | None,
) -> Path:
    """The folder of the run, which is made unless it is there; by one program, others wait for it.

    Of several processes of one program the first has the lock and sees what is there, and all run.
    """
    folder, made = _folder_of(config, key, needed, keys, run_dir)
    processes = current()
    folder = Path(processes.first_of(str(folder)))
    with locked(folder, f"{key}: the {needed} in {folder}") if processes.is_first else nullcontext():
        return _found_or_run(key, needed, folder, made, run)


def _folder_of(
    config: Config,
    key: str,
    needed: str,
    keys: dict[str, Any],
    run_dir: str | Path | None,
    other_limit: float | None = None,
) -> tuple[Path, Config]:
    """Where the run of these keys and data lies, or would, and its config.

    One that had all the time it wanted is as good as one with a limit.

    Args:
        other_limit: a run that ended within so many minutes will do as well.
    """
    inherited = {
        name: str(_row(name, value, run_dir)) if isinstance(value, str) and value.startswith(ROW) else value
        for name, value in _inherited(config, needed).items()
    }
    try:
        made = Config(needed, config_dict={**inherited, **keys})
    except ConfigError as error:
        raise ConfigError(f"{key} is empty, so {needed} would be trained first ({key}_keys): {error}") from error
    content = {
        name: held_by(value) if name in SOURCES else value
        for name, value in saved_keys(made.settings).items()
        if name not in WITHOUT_WEIGHT
    }
    settings, own_limit = RunKeys.of(config), RunKeys.of(made).max_training_minutes
    cache, files = cache_folder(settings.cache_dir, settings.data_path), _files(made)
    for limit in (None, other_limit, own_limit):
        folder = cache / f"{needed}-{settings.dataset}-{digest({**content, _LIMIT: limit}, files)}"
        if limit == own_limit or (folder / "costs.json").is_file():
            break
    return folder, made


def _found_or_run(key: str, needed: str, folder: Path, made: Any, run: Callable[..., dict[str, Any]]) -> Path:
    found, begun = current().first_of([(folder / name).is_file() for name in ("costs.json", "config.yaml")])
    if found:
        logging.getLogger().info(f"{key}: the {needed} in {folder}")
        return folder
    article = "an" if needed[0] in "AEIOU" else "a"
    first = f"{article} {needed} is trained first and kept in"
    what = f"the {needed} of a run that ended early goes on in" if begun else first
    logging.getLogger().info(f"{key} is empty: {what} {folder}")
    run(config_dict={**made.settings, "resume": begun}, run_dir=folder)
    return folder


def _inherited(config: Config, needed: str) -> dict[str, Any]:
    """What the run to be made has in common with the one that needs it: data, split and evaluation; and every key that
    both have, where it is of the model that this one is built on."""
    settings = {key: value for key, value in config.settings.items() if key != "model"}
    own = _defaults(needed, config)
    if issubclass(config.spec.model, own.spec.model):
        return {key: value for key, value in settings.items() if key in own.settings}
    shared = {key for kind in _OWN_KINDS for key in config.parameters.get(kind, ())} | INHERITED - {"model"}
    if "content" not in own.internal_config_dict:  # it reads no texts
        shared.discard("text_keys")
    return {key: value for key, value in settings.items() if key in shared}


def _files(made: Any) -> list[str]:
    """Hashes of the interactions, of what filters them, and of texts that are read, so that changed data have runs of
    their own."""
    settings = RunKeys.of(made)
    folder, filtering = Path(settings.data_path), settings.val_interval or settings.filter_inter_by_user_or_item
    patterns: tuple[str, ...] = ("*.inter", "*.item", "*.user") if filtering else ("*.inter",)
    reads_texts = ContentKeys.of(made).content in _OF_TEXTS or made["item_init"]
    if reads_texts and not filtering:
        patterns += ("*.item",)
    every = [of_format.name for pattern in patterns for of_format in files_of(Path(pattern))]
    tables = [table for pattern in every for table in sorted(folder.glob(pattern))]
    return [file_digest(part) for table in tables for part in parts_of(table)]
