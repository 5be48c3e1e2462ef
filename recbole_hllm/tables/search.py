"""Equal tuning effort: the same number of trials for every model of a table, the best by validation as its row."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import ModelType
from sklearn.model_selection import ParameterGrid

from recbole_hllm.config.config import Config
from recbole_hllm.config.schema import DECLARED
from recbole_hllm.config.scopes import NEVER_SEARCHED, SHARED
from recbole_hllm.data.protocol import check_same_reference
from recbole_hllm.errors import ConfigError, UserError, did_you_mean
from recbole_hllm.registry import base_model
from recbole_hllm.runs.folder import (
    KEYS,
    make_folder,
    none_begun,
    refuse_existing,
    saved_keys,
    write_yaml,
)
from recbole_hllm.runs.run import as_files, merge_keys
from recbole_hllm.storage.files import read_json, write_text
from recbole_hllm.storage.locks import held
from recbole_hllm.tables import search_report
from recbole_hllm.tables.header import mark_incomparable, one_or_each
from recbole_hllm.tables.layout import OF_TABLES, Table
from recbole_hllm.tables.side_by_side import (
    finish,
    own_words,
    prepare,
    read_row,
    run_alone,
    start,
)

_REPORTS = ("search.md", "search.csv", "search.json")
_BEST = "best.yaml"
# Larger spaces are not put in order as a whole.
_LARGE = 10_000_000


def search(
    models: str | Sequence[str | type] | None = None,
    dataset: str | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: dict[str, Any] | None = None,
    run_dir: str | Path | None = None,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs ``trials`` trials of each model and makes one table of each model's best.

    A trial is a run with values drawn from the model's key ``search``, at random from the model's seed, no combination
    twice; the first four are the same of four trials and of eight, and whatever other models there are. The best is the
    one with the best validation score; it is not trained again. A trial that fails counts as one, and so does one on
    other data than the trial that finished first. Models that only count and have no ``search`` are run once.

    Args:
        models, dataset, config_file_list, config_dict, arguments: as for ``compare``; one model is enough. With
            ``resume`` finished trials stay, an unfinished or failed one goes on, and ``trials`` may be more.
        run_dir: folder of the table, with a run folder ``<Model>/trial-<n>/`` for each trial, their results without
            those of the test in search.md, .csv and .json, and the chosen keys in best.yaml.

    Returns:
        What ``compare`` does, and ``trials``: model, trial, keys, valid_score, valid_result, picked, costs of each, and
        error of one that failed.

    Raises:
        ConfigError: before anything runs, for wrong keys and spaces of any model, and values that its config refuses.
            A value that only the data or the weights refuse makes its trials fail.
    """
    given = merge_keys(as_files(config_file_list), config_dict, arguments)
    table = prepare(models, dataset, given, run_dir, words=arguments or ())
    if table.seeds:
        raise ConfigError(
            "seeds: a search has one seed; then make a table with several of what it picked: "
            f"--config_files={table.folder / _BEST} --seeds=[1,2,3]"
        )
    number = _number_of_trials(table)
    table = table._replace(trials=number)
    if table.saved:
        _check_same_search(table)
    elif not none_begun(table.folder):
        refuse_existing(table.folder, (*_REPORTS, _BEST))
    spaces = _spaces(table)
    draws = {model: draw(space, number, table.configs[model]["seed"]) for model, space in spaces.items()}
    for model in spaces:
        _check_values(table, model, spaces[model], draws[model])
    start(table)
    folder, trials = table.folder, []
    picked: dict[str, dict[str, Any]] = {}
    for model in table.models:
        if model in draws:
            done = [_run_trial(table, model, *numbered) for numbered in enumerate(draws[model], 1)]
            picked[model] = _pick(done, table.configs[model]["valid_metric_bigger"])
            trials += [search_report.trial_of(row, row is picked[model]) for row in done]
            _write_reports(table, spaces, trials)
    write_yaml(folder / _BEST, _best(table, picked))
    rows = [picked.get(model) or _run(table, model, folder / KEYS, folder / model) for model in table.models]
    result = finish(table, rows, search=_told(table, draws))
    print(f"{folder}: {', '.join(_REPORTS)}, {_BEST}", flush=True)
    return {**result, "trials": trials}


def draw(space: dict[str, Any], trials: int, seed: int) -> list[dict[str, Any]]:
    """The first ``trials`` combinations of a space in an order drawn from the seed.

    Args:
        space: a list of values for each key. Neither the order of its keys nor ``trials`` changes the drawn order.
        trials: at most as many as there are combinations.
    """
    random = np.random.RandomState(seed)  # NumPy promises that its stream never changes
    if math.prod(map(len, space.values())) > _LARGE:
        drawn = _draw_one_by_one(space, trials, random)
    else:
        grid = ParameterGrid(space)
        drawn = [grid[index] for index in random.permutation(len(grid))[:trials]]
    return [{key: combination[key] for key in space} for combination in drawn]


def _draw_one_by_one(space: dict[str, list[Any]], trials: int, random: Any) -> list[dict[str, Any]]:
    """Distinct combinations, in memory and time of those alone."""
    drawn: list[dict[str, Any]] = []
    while len(drawn) < trials:
        combination = {key: space[key][random.randint(len(space[key]))] for key in sorted(space)}
        if combination not in drawn:
            drawn.append(combination)
    return drawn


# ---- what is asked for ----


def _number_of_trials(table: Table) -> int:
    trials = DECLARED["trials"].checked(table.trials)
    if trials is None:
        raise ConfigError("trials: say how many of each model, such as trials: 4")
    return trials


def _check_same_search(table: Table) -> None:
    """Finished trials are not repeated, so what they have in common must stay."""
    if table.saved.get("trials") is None:
        raise ConfigError(f"run_dir: {table.folder} is a table without trials; search in another folder")
    changed = [key for key, value in table.keys.items() if table.saved.get(key, ...) != value]
    changed = [key for key in changed if key.rpartition(".")[2] not in OF_TABLES - {"search"} | {"trials"}]
    if changed:
        raise ConfigError(
            f"{changed[0]}: the trials in {table.folder} began without this value; resume with the same keys, "
            "or search in another folder"
        )
    if table.trials < table.saved["trials"]:
        raise ConfigError(
            f"trials: {table.trials} are fewer than the {table.saved['trials']} that {table.folder} began with"
        )


def _spaces(table: Table) -> dict[str, dict[str, list[Any]]]:
    """The space of each model that has one.

    Raises:
        ConfigError: a wrong space, one that is too small, or a model that needs one.
    """
    spaces = {}
    for model, config in table.configs.items():
        if config["search"] is not None:
            spaces[model] = _space(table, model, config)
        elif config.spec.model.type != ModelType.TRADITIONAL:
            raise ConfigError(
                f"trials: {model} has nothing to draw {table.trials} from; "
                f"give {model}.search, such as {model}.search: {{learning_rate: [0.001, 0.0003]}}"
            )
        if config["eval_step"] < 1 or _leaves_no_validation(config):
            raise ConfigError(f"trials: without validation (eval_step, eval_args) no trial of {model} can be picked")
    if not spaces:
        raise ConfigError(f"trials: none of {', '.join(table.models)} has anything to search; give <Model>.search")
    return spaces


def _leaves_no_validation(config: Config) -> bool:
    """Whether the split has no validation part: LS test_only, or a ratio of 0 in its place in RS or TS."""
    if config["benchmark_filename"] is not None:  # its files are the parts
        return False
    split = config["eval_args"]["split"]
    ratios = next(iter(split.values()), None) if isinstance(split, dict) else None
    return split == {"LS": "test_only"} or isinstance(ratios, list) and 0 in ratios[1:2]


def _space(table: Table, model: str, config: Config) -> dict[str, list[Any]]:
    """Keys and values to draw from."""
    name, space = f"{model}.search", config["search"]
    if not isinstance(space, dict) or not space:
        raise ConfigError(f"{name}: {space!r} is not a dict of keys and the values to draw from, {{key: [value, ...]}}")
    _check_space(name, space, config)
    owner = model if name in table.keys else base_model(model)
    for given in (f"{owner}.{key}" for key in space):
        if given in table.keys:
            raise ConfigError(f"{given}: {owner}.search draws this key; leave one of the two out")
    # A variant may have the space of its model; what it is given itself is stronger.
    space = {key: values for key, values in space.items() if f"{model}.{key}" not in table.keys}
    combinations = math.prod(map(len, space.values()))
    if table.trials is not None and combinations < table.trials:
        raise ConfigError(
            f"{name}: {combinations} combination{'s' if combinations != 1 else ''} of values, fewer than "
            f"{table.trials} trials; give more values, or fewer trials to all models"
        )
    return space


def _check_space(name: str, space: dict[str, list[Any]], config: Config) -> None:
    """Raises ConfigError for a key that cannot be searched, and for values that are no list of different ones."""
    for key, values in space.items():
        if key in SHARED:
            raise ConfigError(f"{name}: '{key}' is shared by all rows of a table, and cannot be searched")
        if key in NEVER_SEARCHED:
            raise ConfigError(f"{name}: '{key}' cannot be searched")
        if key not in config.final_config_dict:
            hint = did_you_mean(str(key), config.final_config_dict)
            raise ConfigError(f"{name}: '{key}' is not a key of {config['model']}{hint}")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{name}: {key}: {values!r} is not a list of values to draw from")
        if any(value in values[:index] for index, value in enumerate(values)):
            raise ConfigError(f"{name}: {key}: {values} has a value twice")


def _check_values(table: Table, model: str, space: dict[str, list[Any]], draws: list[dict[str, Any]]) -> None:
    """Makes and checks the config of every trial, and one with every value that was not drawn."""
    others = [{**draws[0], key: value} for key, values in space.items() for value in values]
    for keys in draws + others:
        try:
            config = _trial_config(table, model, keys)
            check_same_reference({"the table": table.configs[model]["reference"], "a trial": config["reference"]})
            config.spec.model.check_keys(config)
        except UserError as error:
            raise ConfigError(f"{model}.search: {search_report.in_words(keys)}: {error}") from error


def _trial_config(table: Table, model: str, keys: dict[str, Any]) -> Config:
    return Config(model, config_dict={**table.keys, **_prefixed(model, keys)})


def _prefixed(model: str, keys: dict[str, Any]) -> dict[str, Any]:
    return {f"{model}.{key}": value for key, value in keys.items()}


# ---- the runs ----


def _run_trial(table: Table, model: str, number: int, keys: dict[str, Any]) -> dict[str, Any]:
    """The row of a trial, with ``trial`` and ``keys``, and ``error`` if it failed."""
    folder = table.folder / model / f"trial-{number}"
    make_folder(folder.parent)
    given = {key: value for key, value in saved_keys(table.keys).items() if not key.endswith(".search")}
    write_yaml(file := folder.with_suffix(".yaml"), {"model": table.models, **given, **_prefixed(model, keys)})
    row = {**_run(table, model, file, folder), "trial": number, "keys": keys}
    if "error" not in row:
        _check_same_data(table, row)
    score = row.get("best_valid_score")
    if "error" not in row and (score is None or not math.isfinite(score)):
        row["error"] = "it has no validation score"
    result = row["error"] if "error" in row else f"{table.configs[model]['valid_metric']} {score:.4f}"
    print(f"{model}, trial {number} of {table.trials}, {search_report.in_words(keys)}: {result}", flush=True)
    return row


def _check_same_data(table: Table, row: dict[str, Any]) -> None:
    """Marks a trial on other data than the one that finished first, perhaps before the search went on elsewhere."""
    finished = [file for model in table.models for file in sorted((table.folder / model).glob("trial-*/costs.json"))]
    if finished:
        first = min(finished, key=lambda file: file.stat().st_mtime_ns).parent
        name = f"{first.parent.name}, {first.name.replace('-', ' ')}"
        mark_incomparable(row, read_json(first / "protocol.json"), name)


def _run(table: Table, model: str, file: Path, folder: Path) -> dict[str, Any]:
    """The row of a run in a process of its own, or of one that finished before."""
    with held(folder.with_name(f".{folder.name}.lock")) as lock:  # another process of the same search may have it
        if (folder / "costs.json").is_file():  # what a run writes last
            return read_row(model, folder)
        return run_alone(model, file, folder, [*own_words(model, table.keys, folder), "--trials=None"], lock)


def _pick(rows: list[dict[str, Any]], bigger: bool) -> dict[str, Any]:
    """The row with the best validation score, the first of equal ones; why there is none if all failed."""
    done = [row for row in rows if "error" not in row]
    if not done:
        first = f"{search_report.in_words(rows[0]['keys'])}: {rows[0]['error']}"
        return {"model": rows[0]["model"], "error": f"all of its {len(rows)} trials failed, the first with {first}"}
    return (max if bigger else min)(done, key=lambda row: row["best_valid_score"])


# ---- what is reported ----


def _best(table: Table, picked: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The chosen values, ``<Model>.<key>``; a variant has one of its own for each key that the line of its model sets,
    which would be its too."""
    best: dict[str, Any] = {}
    for model, row in picked.items():
        if "keys" in row:
            settings = _trial_config(table, model, row["keys"]).settings
            inherited = picked.get(base_model(model), {}).get("keys", {})
            best |= _prefixed(model, {**{key: settings.get(key) for key in inherited}, **row["keys"]})
    return best


def _told(table: Table, draws: Collection[str]) -> str:
    """A line of the table's header."""
    once = [model for model in table.models if model not in draws]
    others = f" ({', '.join(once)}: one run)" if once else ""
    return f"best of {table.trials} trials by {table.configs[table.models[0]]['valid_metric']}{others}"


def _write_reports(table: Table, spaces: dict[str, dict[str, list[Any]]], trials: list[dict[str, Any]]) -> None:
    first = table.configs[table.models[0]]
    header = {
        "dataset": first["dataset"],
        "trials": table.trials,
        "valid_metric": first["valid_metric"],
        "seed": one_or_each({model: table.configs[model]["seed"] for model in spaces}),
        "spaces": spaces,
    }
    to = (search_report.to_markdown, search_report.to_csv, search_report.to_json)
    for name, text in zip(_REPORTS, to, strict=True):
        write_text(table.folder / name, text(trials, header))
