"""Several models on one data set under one protocol, each in a process of its own, and the table of their results."""

import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from recbole_hllm import own_models
from recbole_hllm.config.config import Config
from recbole_hllm.config.parsing import ROW
from recbole_hllm.config.renamed import read_saved
from recbole_hllm.config.scopes import SHARED
from recbole_hllm.data.protocol import check_same_reference
from recbole_hllm.doors import folder_of, is_importable, place_of
from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.evaluation.metrics import registered_metrics
from recbole_hllm.processes import refuse_several
from recbole_hllm.registry import base_model, known_name
from recbole_hllm.runs.effect import tell_of_table
from recbole_hllm.runs.folder import (
    KEYS,
    make_folder,
    none_begun,
    refuse_existing,
    saved_keys,
    unused_folder,
    write_yaml,
)
from recbole_hllm.runs.prerequisites import named_rows
from recbole_hllm.runs.run import as_files, merge_keys
from recbole_hllm.storage.files import read_json, write_whole
from recbole_hllm.storage.locks import Lock, held
from recbole_hllm.storage.logs import check_wandb, last_error
from recbole_hllm.tables.below import below
from recbole_hllm.tables.header import header_of
from recbole_hllm.tables.layout import NAMES_A_ROW, Table, check_repeated, folders_of, jobs_of, rows_of, rows_to_go_on
from recbole_hllm.tables.sanity import with_sanity_rows
from recbole_hllm.tables.seeds import checked_seeds, repeated_rows
from recbole_hllm.tables.significance import add_tests
from recbole_hllm.tables.spread import Job, make_all
from recbole_hllm.tables.table import to_console, to_csv, to_json, to_markdown

_TABLES = ("table.md", "table.csv", "table.json")
_LOCK = ".table.lock"  # of who writes them, or the keys
_USER_ERROR = 2  # exit code of a run with an error that the user can mend


def compare(
    models: str | Sequence[str | type],
    dataset: str | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: dict[str, Any] | None = None,
    run_dir: str | Path | None = None,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Trains and evaluates models one after the other and writes one table.

    Several processes that share its folder, the later ones with ``resume``, make different runs of it at the same time;
    each writes the whole table when all runs have ended. A finished run is not repeated.

    Args:
        models: two or more model names, a list or separated by commas, or variants like ``HLLM@scratch`` with keys of
            their own; the rows of ``sanity_rows`` come after them.
        dataset, config_file_list, config_dict, arguments: as for ``run``, for all models; a key ``<Model>.<key>``
            is for one of them.
        run_dir: folder of the table, with a run folder ``<Model>/`` for each, or with ``seeds`` ``<Model>/seed-<n>/``.

    Returns:
        ``rows``, ``header``, ``failed`` (names of models without a result) and ``run_dir``.

    Raises:
        ConfigError: before anything runs, for wrong keys of any of the models.
    """
    given = merge_keys(as_files(config_file_list), config_dict, arguments)
    table = prepare(models, dataset, given, run_dir, words=arguments or ())
    if table.trials is not None:
        raise ConfigError("trials: this is one run of each model; recbole_hllm.tables.search.search makes several")
    start(table)
    return finish(table, rows_of(table, make_all(jobs_of(table), partial(_make, table))))


def _make(table: Table, job: Job, lock: Lock) -> dict[str, Any]:
    """What a run results in, or resulted in before."""
    if (job.folder / "costs.json").is_file():  # what a run writes last
        return read_row(job.row, job.folder)
    words = [*own_words(job.row, table.keys, job.folder), *job.words]
    return run_alone(job.row, table.folder / KEYS, job.folder, words, lock)


def prepare(
    models: Any, dataset: str | None, given: dict[str, Any], run_dir: str | Path | None, words: Collection[str] = ()
) -> Table:
    """Checks everything that can be, before anything runs or is written; arguments and errors are ``compare``'s.

    Args:
        given: keys and values of all files and words.
        words: keys of the command line.
    """
    refuse_several("compare", "a model that is to have several processes is a run of its own")
    given = {**given, "dataset": dataset or given.get("dataset")}
    if given.get("evaluate_only"):
        raise ConfigError("evaluate_only: one run at a time; give the run_dir of one model, PATH/<Model>")
    if given.get("resume") and not run_dir:
        raise ConfigError("resume: name the folder of the unfinished table, run_dir")
    folder, saved = Path(run_dir) if run_dir else unused_folder(str(given["dataset"]), "table"), {}
    if given.get("resume"):
        saved = _read_keys(folder, given["dataset"])
        given = {**saved, **given, "dataset": saved["dataset"]}
    named, trials = given.pop("model", None) or (), given.pop("trials", None)
    named = _names(named)
    models = _names(models) or named
    if not models:
        raise ConfigError("model is not set: give --model=NAME,NAME, or model in a config file")
    if len(set(models)) != len(models):
        raise ConfigError(f"model: {','.join(models)} names a model twice")
    given = _without_rows(set(named) - {*models, *map(base_model, models)}, given, words)
    if seeds := checked_seeds(given.pop("seeds", None), given):
        drawn = given.get("data_seed")
        given |= {"seed": seeds[0], "data_seed": seeds[0] if drawn is None else drawn}
    _check_same_seeds(folder, saved, seeds)
    models, given, left_out = with_sanity_rows(models, given)
    if not given.get("resume") and not none_begun(folder):
        refuse_existing(folder, (KEYS, *_TABLES, *models))
    configs = _check(models, given, left_out, folder)
    _check_importable(configs)
    tell_of_table(configs, given)
    table = Table(models, given, trials, seeds, configs, left_out, folder, saved)
    check_repeated(table)
    return table


def _check_same_seeds(folder: Path, saved: Mapping[str, Any], seeds: list[int] | None) -> None:
    """A table may go on with more seeds."""
    before = saved.get("seeds")
    if saved and bool(before) != bool(seeds):
        raise ConfigError(f"seeds: {folder} is a table {'with' if before else 'without'} seeds; make another one")


def _names(models: Any) -> list[str]:
    if isinstance(models, str):
        models = filter(None, map(str.strip, models.split(",")))
    return list(map(known_name, models or ()))


def _without_rows(others: set[str], given: dict[str, Any], words: Collection[str]) -> dict[str, Any]:
    """Without what is said of rows that a file lists in its ``model`` and this table does not ask for.

    Raises:
        ConfigError: the command line itself says something of them.
    """
    kept = {key: value for key, value in given.items() if "." not in key or key.partition(".")[0] not in others}
    for key in words:
        if key in given and key not in kept:
            raise ConfigError(f"{key}: the row {key.partition('.')[0]} is left out of this run; name it in model too")
    for key in NAMES_A_ROW:
        if kept.get(key) in others and key not in words:
            del kept[key]
    if isinstance(kept.get("seeds_for"), list) and "seeds_for" not in words:
        kept["seeds_for"] = [row for row in kept["seeds_for"] if row not in others]
    return kept


def start(table: Table) -> None:
    """Makes the table's folder, with the keys that make the same table again. Of a table that goes on with other keys,
    finished runs that these are for go on as well, and those that read them.

    Raises:
        ConfigError: one of them cannot, see ``rows_to_go_on``; nothing has changed then.
    """
    make_folder(table.folder)
    several = {"trials": table.trials, "seeds": table.seeds}
    several = {key: value for key, value in several.items() if value is not None}
    with held(table.folder / _LOCK):
        for model in rows_to_go_on(table) if table.trials is None and table.saved else ():
            for costs in [*(table.folder / model).glob("costs.json"), *(table.folder / model).glob("*/costs.json")]:
                costs.unlink()
        write_yaml(table.folder / KEYS, {"model": table.models, **several, **saved_keys(table.keys)})


def finish(table: Table, rows: list[dict[str, Any]], **further: Any) -> dict[str, Any]:
    """Writes and prints the table of finished rows; returns what ``compare`` does.

    Args:
        further: further lines of the header.
    """
    header = header_of(rows, table.keys["dataset"])
    header = {**header, "valid_metric": table.configs[table.models[0]]["valid_metric"], **further}
    if table.left_out:
        header["left_out"] = [f"{model} ({reason})" for model, reason in table.left_out.items()]
    if table.seeds:
        seeds = ", ".join(map(str, table.seeds))
        once = "others" if repeated_rows(table.configs[table.models[0]]) else "rows that only count"
        header["seed"] = f"{seeds}, one run with each; {once}: {table.seeds[0]}"
    folders = {row["model"]: folders_of(table, row) for row in rows}
    if reference := table.keys.get("compare_to"):
        header |= {"compare_to": reference, "compare_test": table.configs[reference]["compare_test"]}
        if untested := _tested(rows, reference, folders, table.configs[reference]):
            header["not_tested"] = untested
    blocks = below(rows, table.configs, folders)
    texts = (to_markdown(rows, header, *blocks), to_csv(rows), to_json(rows, header))
    with held(table.folder / _LOCK):
        for name, text in zip(_TABLES, texts, strict=True):
            write_whole(table.folder / name, text)
    print(to_console(rows, header))
    print("".join("\n".join(lines) + "\n\n" for lines in blocks if lines), end="")
    print(f"{table.folder}: {', '.join(_TABLES)}, and a folder for each run", flush=True)
    return {
        "rows": rows,
        "header": header,
        "failed": [row["model"] for row in rows if "error" in row],
        "run_dir": str(table.folder),
    }


def _tested(rows: list[dict[str, Any]], reference: str, folders: Mapping[str, Sequence[Path]], config: Config) -> str:
    """Adds ``tests`` to the rows; returns why there are none, or nothing."""
    try:
        return add_tests(rows, reference, folders, config["compare_test"], config["seed"])
    except UserError as error:  # ranks of a run are damaged; the table has its numbers all the same
        return str(error)


def _read_keys(folder: Path, dataset: str | None) -> dict[str, Any]:
    """Keys of the table in a folder, which is to go on."""
    keys = saved_keys(read_saved(folder / KEYS)) if (folder / KEYS).is_file() else {}
    if "dataset" not in keys:
        raise ConfigError(f"run_dir: there is no table in {folder}: no {KEYS} of one")
    if dataset not in (None, keys["dataset"]):
        raise ConfigError(f"run_dir: {folder} is a table of {keys['dataset']}, not of {dataset}")
    return keys


def own_words(model: str, given: dict[str, Any], folder: Path) -> list[str]:
    """Words passed to a row's process besides the table's keys; a row that was never begun is no run to go on with."""
    unsaved = given.keys() - saved_keys(given).keys() - {"resume"}
    own = ("", model, base_model(model))
    words = [f"--{key}={given[key]}" for key in given if key in unsaved and key.rpartition(".")[0] in own]
    return words + ["--resume=True"] * (folder / "config.yaml").is_file()


def _check(models: Any, given: dict[str, Any], left_out: dict[str, str], folder: Path) -> dict[str, Config]:
    """Makes every model's config, before hours are spent on the first one's training."""
    for key in given:
        prefix, dot, rest = key.partition(".")
        named = {*models, *map(base_model, models), *left_out}
        if dot and prefix not in named:
            raise ConfigError(f"{key}: '{prefix}' is not a model of this run ({', '.join(models)})")
        if dot and rest in SHARED:
            raise ConfigError(f"{key}: '{rest}' is shared by all rows of a table; set it without '{prefix}.'")
    configs = {model: _config(model, given) for model in models}
    of_rows = [(key, given.get(key)) for key in NAMES_A_ROW]
    for key, name in [*of_rows, *(("seeds_for", row) for row in repeated_rows(configs[models[0]]) or ())]:
        if name and name not in models:
            raise ConfigError(f"{key}: '{name}' is not a row of this table ({', '.join(models)})")
    check_same_reference({row: config["reference"] for row, config in configs.items()})
    for model, config in configs.items():
        with _row_named(model):
            config.spec.model.check_keys(config)
            check_wandb(config)
        _check_rows_before(model, configs, folder)
    labelled = [model for model, config in configs.items() if config.spec.rows.labelled]
    if 0 < len(labelled) < len(models):
        others = [model for model in models if model not in labelled]
        raise ConfigError(
            f"model: {', '.join(labelled)} score labelled rows and {', '.join(others)} rank items; "
            "no table can hold both, make one for each"
        )
    if labelled and given.get("compare_to"):
        raise ConfigError("compare_to: rows are compared user by user, by rankings; labelled rows have none")
    return configs


def _check_importable(configs: Mapping[str, Config]) -> None:
    """Raises ConfigError for a class of the user's that the rows' processes cannot import."""
    models = [model for model in own_models.registered() if model.__name__ in map(base_model, configs)]
    metrics = {name.lower() for config in configs.values() for name in config["metrics"]}
    for thing in (*models, *(metric for metric in registered_metrics() if metric.__name__.lower() in metrics)):
        if not is_importable(thing):
            raise ConfigError(
                f"{place_of(thing)}: each row of a table is a process of its own, which imports the class: write it at "
                "the top of a module, not in a script, a notebook or a function"
            )


def _check_rows_before(model: str, configs: Mapping[str, Config], folder: Path) -> None:
    """A model that needs another row's run finds it made before its own, and fit for it."""
    config, before = configs[model], list(configs)[: list(configs).index(model)]
    for key, name in named_rows(config):
        if name in before:
            with _row_named(model):
                config.spec.model.check_row(config, key, configs[name])
        elif not (folder / name / "costs.json").is_file():
            raise ConfigError(
                f"{model}: {key}: {ROW}{name}: there is no row {name} before it; rows are made in the order of model "
                f"({', '.join(configs)})"
            )


def _config(model: str, given: dict[str, Any]) -> Config:
    """A row's; an error of a key that was given for this row alone names the row."""
    try:
        return Config(model, config_dict=given)
    except ConfigError as error:
        key = str(error).partition(":")[0].partition(" ")[0]
        owner = next((name for name in (model, base_model(model)) if f"{name}.{key}" in given), None)
        raise ConfigError(f"{owner}: {error}" if owner else str(error)) from error


@contextmanager
def _row_named(model: str) -> Iterator[None]:
    """Names the row whose keys are wrong, where it has keys of its own."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{model}: {error}" if base_model(model) != model else str(error)) from None


def run_alone(model: str, keys: Path, folder: Path, words: Sequence[str], lock: Lock | None = None) -> dict[str, Any]:
    """One model in a new process: a process's peak memory never falls, and a crash leaves the other rows alone.

    Args:
        keys: the table's file of them.
        folder: of the run.
        words: of its command line, beside these.
        lock: that the process is to hold, too, so that it stays held where this one is killed.
    """
    command = [sys.executable, "-m", "recbole_hllm.cli", f"--model={model}"]
    command += [f"--config_files={keys}", f"--run_dir={folder}", *words]
    own = [thing for thing in (*own_models.registered(), *registered_metrics()) if is_importable(thing)]
    if own:  # of this row or of another: their keys stand in the table's file
        command.append(f"--imports={' '.join(map(place_of, own))}")
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([*map(str, (package, *map(folder_of, own))), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept: dict[str, Any] = {"pass_fds": lock.descriptors} if lock and lock.descriptors else {}
    process = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, **kept)
    if process.returncode != 0:
        return {"model": model, "error": _why(process.returncode, folder / "run.log")}
    return read_row(model, folder)


def _why(code: int, log: Path) -> str:
    """Why a run ended, in one line: what it says itself, or that it crashed and where the traceback is."""
    error = last_error(log)
    if error is None:
        return f"ended with exit code {code}; see {log}"
    return error if code == _USER_ERROR else f"crashed ({error}); its traceback is in {log}"


def read_row(model: str, folder: Path) -> dict[str, Any]:
    """A table's row from the folder of a finished run."""
    row = {**read_json(folder / "metrics.json"), "model": model}
    row["costs"], row["protocol"] = read_json(folder / "costs.json"), read_json(folder / "protocol.json")
    if (folder / "segments.json").is_file():  # without a test there are no segments
        row["segments"] = read_json(folder / "segments.json")
    return row
