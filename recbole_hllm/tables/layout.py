"""What a table consists of: its rows, the runs of each, and the folders that these lie in."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole.utils import ModelType

from recbole_hllm.config.config import Config
from recbole_hllm.config.parsing import ROW
from recbole_hllm.config.scopes import LIMITS, MAY_CHANGE, OF_DATA, OF_OUTPUT, WITHOUT_WEIGHT
from recbole_hllm.errors import ConfigError
from recbole_hllm.registry import base_model
from recbole_hllm.runs.folder import read_settings
from recbole_hllm.storage.files import read_json
from recbole_hllm.tables.seeds import over_seeds, repeated_rows
from recbole_hllm.tables.spread import Job

# Keys whose value is the name of a row, and keys of a table that change none of its runs.
NAMES_A_ROW = ("ratios_to", "compare_to")
OF_TABLES = MAY_CHANGE | {*NAMES_A_ROW, "compare_test", "seeds_for", "show_recommendations", "sanity_rows", "search"}


class Table(NamedTuple):
    """What a table is to hold, checked.

    Attributes:
        models: names of its rows, in order, sanity rows last.
        keys: keys and values given, ``<Model>.<key>`` included.
        trials: trials of each model, where the table is one of a search.
        seeds: those of the table, where it has several.
        configs: that of each row.
        left_out: sanity rows without a place, and why.
        folder: of the table.
        saved: what ``KEYS`` of the folder holds where the table goes on.
    """

    models: list[str]
    keys: dict[str, Any]
    trials: int | None
    seeds: list[int] | None
    configs: dict[str, Config]
    left_out: dict[str, str]
    folder: Path
    saved: dict[str, Any]

    def seeds_of(self, model: str) -> list[int]:
        """Those of a row's runs; none in a table without ``seeds``."""
        repeated = repeated_rows(self.configs[model])
        seeds = self.seeds or []
        return seeds if repeated is None or model in repeated else seeds[:1]


def folder_of(table: Table, model: str, seed: int | None) -> Path:
    """Of a row's run with a seed, None in a table without ``seeds``. A model that only counts has one run, unless it
    counts on other rows' runs."""
    counts = table.configs[model].spec.model.type == ModelType.TRADITIONAL and not _rows_needed(table, model)
    return table.folder / model / ("" if seed is None or counts else f"seed-{seed}")


def folders_of(table: Table, row: Mapping[str, Any]) -> list[Path]:
    """Of the runs that a finished row is of: in a search, of the trial picked."""
    if "trial" in row:
        return [table.folder / row["model"] / f"trial-{row['trial']}"]
    return [folder_of(table, row["model"], seed) for seed in row.get("seeds", [None])]


def check_repeated(table: Table) -> None:
    """Raises ConfigError for a row with more runs than one that it reads, and warns of ``seeds_for`` without seeds."""
    if not table.seeds and repeated_rows(table.configs[table.models[0]]) is not None:
        logging.getLogger().warning("seeds_for without effect: the table has no seeds")
    for model in table.models:
        for name in _rows_needed(table, model):
            wanted = [folder_of(table, name, seed) for seed in table.seeds_of(model)]
            if not {*wanted} <= {folder_of(table, name, seed) for seed in table.seeds_of(name)}:
                raise ConfigError(f"seeds_for: {model} reads {ROW}{name}, which has one run; name {name}, too")


def _rows_needed(table: Table, model: str) -> list[str]:
    """The rows of the table that its keys name, ``row:NAME``."""
    values = (value if isinstance(value, list) else [value] for value in table.configs[model].settings.values())
    names = (str(value).removeprefix(ROW) for listed in values for value in listed if str(value).startswith(ROW))
    return [name for name in names if name in table.models]


def jobs_of(table: Table) -> list[Job]:
    """The runs of a table, those with the first seed before those with the second."""
    jobs: dict[Path, Job] = {}
    seeds: Sequence[int | None] = table.seeds or [None]
    for seed in seeds:
        words: tuple[str, ...] = () if seed is None else (f"--seed={seed}", "--seeds=None")
        for model in (row for row in table.models if seed is None or seed in table.seeds_of(row)):
            after = frozenset(folder_of(table, name, seed) for name in _rows_needed(table, model))
            folder = folder_of(table, model, seed)
            jobs.setdefault(folder, Job(model, folder, words, after))
    return list(jobs.values())


def rows_of(table: Table, made: Mapping[Path, dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table, from what its runs came to."""
    rows = []
    for model in table.models:
        runs = {seed: folder_of(table, model, seed) for seed in table.seeds_of(model)}
        alone = table.folder / model
        several = {seed: made[folder] for seed, folder in runs.items() if folder != alone}
        rows.append(over_seeds(model, several) if several else made[alone])
    return rows


def rows_to_go_on(table: Table) -> list[str]:
    """Rows of a table that goes on which have other keys now than those that it began with, or read such rows.

    Raises:
        ConfigError: a training that has ended would not change: it had another value of a key, or read another run.
    """
    found: list[str] = []
    others: list[str] = []  # those of them whose weights may be others then
    for model in table.models:  # each after those that it reads
        keys, needed = _changed_keys(table, model), _rows_needed(table, model)
        if not keys and not {*needed} & {*found}:
            continue
        found.append(model)
        read, folders = [name for name in needed if name in others], _trained(table, model)
        deciding = [key for key in keys if key not in WITHOUT_WEIGHT | OF_OUTPUT]
        changed = [key for folder in folders for key in deciding if _differs(table, model, folder, key)]
        for folder in folders:
            _check_goes_on(table, model, folder, changed, read)
        if read or (changed if folders else deciding):
            others.append(model)
    return found


def _changed_keys(table: Table, model: str) -> list[str]:
    """Those of a row with other values than the table began with, without the names of rows before them."""
    owners = ("", model, base_model(model))
    changed = (key.rpartition(".") for key, value in table.keys.items() if table.saved.get(key, ...) != value)
    return [key for owner, _, key in changed if owner in owners and key not in OF_TABLES]


def _trained(table: Table, model: str) -> list[Path]:
    """Folders of a row's runs whose training has ended; none of what only counts, which it does again."""
    if table.configs[model].spec.model.type == ModelType.TRADITIONAL:
        return []
    seeds: Sequence[int | None] = table.seeds_of(model) or [None]
    folders = [folder_of(table, model, seed) for seed in seeds]
    return [folder for folder in folders if (folder / "costs.json").is_file()]


def _differs(table: Table, model: str, folder: Path, key: str) -> bool:
    """Whether the run in a folder was trained with another value, whatever the table began with."""
    return bool(read_settings(folder).get(key) != table.configs[model].settings.get(key))


def _check_goes_on(table: Table, model: str, folder: Path, changed: Sequence[str], read: Sequence[str]) -> None:
    """Raises ConfigError where a training that has ended would not be the one that these keys make.

    Args:
        changed: keys that decide weights, with another value than that of its training.
        read: rows that it read, which would be others now.
    """
    again = f"make another table, or move {folder} away to train it again"
    if read:
        raise ConfigError(
            f"{model}: its run is finished and read {ROW}{read[0]}, which would be another run with these keys; {again}"
        )
    by_itself = read_json(folder / "costs.json").get("converged")
    longer = LIMITS & {*changed}
    for key in changed:
        if key not in LIMITS and (by_itself or key in OF_DATA or not longer):
            raise ConfigError(f"{key}: the finished run of {model} was trained with another value; {again}")
