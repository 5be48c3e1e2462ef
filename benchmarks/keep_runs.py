"""Copies what is small of finished runs, tables and searches, so that `report` and `reproduce` work on the copy.

Keys, metrics, costs, curves, ranks of the test and tables are copied, without keys that say where data lie and on which
device a run was made; weights, logs and unfinished runs are not. A run that reads weights of others of its table, such
as a Blend, cannot be reproduced alone: make its table again. What was trained first for a run, in cache_dir, is trained
again where the run is reproduced.

    PYTHONPATH=. python benchmarks/keep_runs.py runs/answer benchmarks/results/answer/amazon-scientific-2018
"""

import argparse
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from recbole_hllm.config.scopes import MAY_CHANGE
from recbole_hllm.storage.cache import cache_folder

# Of a run, beside config.yaml, and of a table or a search, beside keys.yaml.
_OF_A_RUN = ("metrics.json", "costs.json", "protocol.json", "segments.json", "curve.json", "versions.json",
             "picked.json", "ranks-test.npz")  # fmt: skip
_OF_A_TABLE = ("table.md", "table.csv", "table.json", "search.md", "search.csv", "search.json", "best.yaml")


def keep(source: Path, to: Path, trials: bool = False) -> list[Path]:
    """Copies the runs and tables in a folder; what was copied before and is gone now stays.

    Args:
        source: the folder of a run, a table or a search, or of several of them.
        to: another folder.
        trials: copy the trials of a search, too; without them its tables are copied, which list all trials.

    Returns:
        The folders of runs that were copied.

    Raises:
        SystemExit: there is no finished run, or one folder lies in the other.
    """
    names = {re.escape(str(path)) for path in (source.absolute(), source.resolve())}  # through a link, and without
    place = re.compile(f"({'|'.join(names)})" + r"(?=[/\"'\s]|$)")  # not the beginning of another folder's name
    source, target = source.resolve(), to.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise SystemExit(f"{source} and {target} lie in each other; name another folder for the copy")
    if not any(source.rglob("costs.json")):
        raise SystemExit(f"there is no finished run in {source}: no costs.json")

    def moved(text: str) -> str:  # folders of runs that a run reads
        return place.sub(to.as_posix(), text)

    kept = []
    for config in sorted(source.rglob("config.yaml")):
        run = config.parent
        if (run / "costs.json").is_file() and (trials or not run.name.startswith("trial-")):
            _copy(run, to / run.relative_to(source), "config.yaml", _OF_A_RUN, moved)
            kept.append(to / run.relative_to(source))
    for keys in sorted(source.rglob("keys.yaml")):
        if any((keys.parent / name).is_file() for name in _OF_A_TABLE):
            _copy(keys.parent, to / keys.parent.relative_to(source), "keys.yaml", _OF_A_TABLE, moved)
    return kept


def _copy(source: Path, to: Path, keys: str, names: tuple[str, ...], moved: Callable[[str], str]) -> None:
    to.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load(moved((source / keys).read_text()))
    cache = f"{cache_folder(values.get('cache_dir'), values.get('data_path') or '.').absolute()}/"
    values = _without(cache, without_places(values))
    (to / keys).write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    for name in names:
        if (source / name).is_file() and name.endswith(".npz"):
            shutil.copyfile(source / name, to / name)
        elif (source / name).is_file():
            (to / name).write_text(moved((source / name).read_text()).replace(cache, "cache/"))


def _without(cache: str, value: Any) -> Any:
    """Keys and values, nested ones too, with None for what lies in this folder."""
    if isinstance(value, dict):
        return {key: _without(cache, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without(cache, inner) for inner in value]
    return None if isinstance(value, str) and value.startswith(cache) else value


def without_places(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys and values without those of a machine, ``<Model>.<key>`` included."""
    return {key: value for key, value in keys.items() if key.rpartition(".")[2] not in MAY_CHANGE}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of runs")
    parser.add_argument("to", type=Path, help="folder of the copy")
    parser.add_argument("--trials", action="store_true", help="also the runs of a search")
    arguments = parser.parse_args()
    kept = keep(arguments.source, arguments.to, arguments.trials)
    print(f"{len(kept)} runs are kept in {arguments.to}")


if __name__ == "__main__":
    main()
