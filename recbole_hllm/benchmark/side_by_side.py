"""Several models on one data set under one protocol, each in a process of its own, and the table of their results."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from recbole_hllm.benchmark.table import to_console, to_csv, to_json, to_markdown
from recbole_hllm.config import Config, read_yaml
from recbole_hllm.errors import ConfigError
from recbole_hllm.training.checkpoint import read_json

# What a row may not set for itself: it would no longer be comparable with the others.
_SHARED_KEYS = {
    "data_path", "eval_args", "metrics", "topk", "mask_history", "benchmark_filename", "user_inter_num_interval",
    "item_inter_num_interval", "val_interval", "rm_dup_inter", "filter_inter_by_user_or_item", "USER_ID_FIELD",
    "ITEM_ID_FIELD", "TIME_FIELD", "metric_decimal_place", "repeatable",
}  # fmt: skip


def compare(models, dataset=None, config_file_list=None, config_dict=None, run_dir=None, arguments=None) -> dict:
    """Trains and evaluates models one after the other and writes one table.

    Args:
        models: two or more model names.
        dataset, config_file_list, config_dict, arguments: as for ``run``, for all models; a key ``<Model>.<key>``
            is for one of them.
        run_dir: folder of the table, with a run folder ``<Model>/`` for each.

    Returns:
        ``rows``, ``header``, ``failed`` (names of models without a result) and ``run_dir``.

    Raises:
        ConfigError: before anything runs, for wrong keys of any of the models.
    """
    if len(set(models)) != len(models):
        raise ConfigError(f"model: {','.join(models)} names a model twice")
    given = _merge(config_file_list, config_dict, arguments)
    dataset = dataset or given.pop("dataset", None)
    _check(models, dataset, given)
    folder = Path(run_dir or Path("runs", str(dataset), "table-" + time.strftime("%Y%m%d-%H%M%S")))
    if any((folder / model / "config.yaml").exists() for model in models) and not given.get("resume"):
        raise ConfigError(f"run_dir: {folder} already holds runs of these models; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    keys = folder / "keys.yaml"
    keys.write_text(yaml.safe_dump(given, sort_keys=False, allow_unicode=True), encoding="utf-8")
    rows = [_run_alone(model, dataset, keys, folder / model) for model in models]
    header = _header(rows, dataset)
    for suffix, text in (
        ("md", to_markdown(rows, header)), ("csv", to_csv(rows)), ("json", to_json(rows, header)),
    ):  # fmt: skip
        (folder / f"table.{suffix}").write_text(text, encoding="utf-8")
    print(to_console(rows, header))
    print(f"\n{folder}: table.md, table.csv, table.json, and a folder for each run")
    return {
        "rows": rows,
        "header": header,
        "failed": [row["model"] for row in rows if "error" in row],
        "run_dir": str(folder),
    }


def _merge(files, config_dict, arguments) -> dict:
    from recbole_hllm.config import parse_value

    given = {}
    for file in files or []:
        given.update(read_yaml(file))
    given.update(config_dict or {})
    given.update({key: parse_value(value) for key, value in (arguments or {}).items()})
    return {key: value for key, value in given.items() if key != "model"}


def _check(models, dataset, given):
    """Every model's config, before hours are spent on the first one's training."""
    for key in given:
        prefix, dot, rest = key.partition(".")
        if dot and prefix not in models:
            raise ConfigError(f"{key}: '{prefix}' is not a model of this run ({', '.join(models)})")
        if dot and rest in _SHARED_KEYS:
            raise ConfigError(f"{key}: '{rest}' is shared by all rows of a table; set it without '{prefix}.'")
    for model in models:
        Config(model, dataset, config_dict=given)


def _run_alone(model, dataset, keys, folder) -> dict:
    """One model in a new process: a process's peak memory never falls, and a crash leaves the other rows alone."""
    command = [sys.executable, "-m", "recbole_hllm.cli", f"--model={model}", f"--dataset={dataset}"]
    command += [f"--config_files={keys}", f"--run_dir={folder}"]
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stderr=None)
    if process.returncode != 0 or not (folder / "metrics.json").is_file():
        return {"model": model, "error": _reason(folder, process.returncode)}
    row = read_json(folder / "metrics.json")
    row["costs"], row["protocol"] = read_json(folder / "costs.json"), read_json(folder / "protocol.json")
    return row


def _reason(folder, code):
    log = folder / "run.log"
    lines = log.read_text(encoding="utf-8").strip().splitlines() if log.is_file() else []
    errors = [line for line in lines if " E " in line]
    return errors[-1].split(" E ", 1)[1] if errors else f"ended with exit code {code}; see {log}"


def _header(rows, dataset) -> dict:
    """What all rows share; a row that differs is a mistake of this program or of its files, and is said."""
    done = [row for row in rows if "error" not in row]
    if not done:
        return {"dataset": dataset}
    first = done[0]["protocol"]
    for row in done[1:]:
        other = row["protocol"]["fingerprint"]
        differing = [key for key, value in first["fingerprint"].items() if other.get(key) != value]
        if differing:
            row["error"] = f"not comparable with {done[0]['model']}: {', '.join(differing)} differ"
            logging.getLogger().error(f"{row['model']}: {row['error']}")
    mode = first["eval_args"]["mode"]
    lengths = {row["model"]: row["protocol"]["history_length"] for row in done}
    same = len(set(lengths.values())) == 1
    return {
        "dataset": dataset,
        **first["statistics"],
        "split": f"{first['eval_args']['split']}, order {first['eval_args']['order']}",
        "masking": "whole history" if first["mask_history"] else "none (RecBole's for sequential models)",
        "candidates": "whole catalogue" if mode["test"] == "full" else f"{mode['test']}, drawn once from the seed",
        "metrics": "RecBole's Evaluator, best validation weights",
        "history_length": first["history_length"] if same else str(lengths),
        "seed": first["seed"],
    }
