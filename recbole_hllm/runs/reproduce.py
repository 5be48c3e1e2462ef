"""reproduce(): runs a finished run again, from what its folder says, and sets old and new numbers side by side."""

from pathlib import Path
from typing import Any

import recbole_hllm
from recbole_hllm.config.scopes import MAY_CHANGE, SOURCES
from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.runs.folder import read_settings
from recbole_hllm.runs.run import merge_keys, run
from recbole_hllm.storage.files import read_json, write_json
from recbole_hllm.units import MISSING, format_seconds

# Where results are that came with the program, from the top of its repository.
RESULTS = Path("benchmarks", "results")
REPORT = "reproduced.json"
# Keys that leave a run what it was.
_MAY_BE_GIVEN = (MAY_CHANGE | SOURCES) - {"evaluate_only"}


def found(name: str) -> Path:
    """The folder of a finished run.

    Args:
        name: a folder, or one below ``benchmarks/results``, such as ``amazon-scientific-2018/SASRec``, of the working
            folder or of the repository that this program is installed from.

    Raises:
        ConfigError: there is no such run, or the folder is that of several, which are named.
    """
    results = [RESULTS, Path(recbole_hllm.__file__).resolve().parents[1] / RESULTS]
    places = [Path(name), *(top / name for top in results)]
    for folder in places:
        if (folder / "config.yaml").is_file():
            if not (folder / "metrics.json").is_file():
                raise ConfigError(f"reproduce: the run in {folder} is not finished: no metrics.json")
            return folder
    for folder in places:
        inside = sorted(file.parent for file in folder.rglob("config.yaml") if (file.parent / "metrics.json").is_file())
        if inside:
            rows = ", ".join(path.relative_to(folder).as_posix() for path in inside)
            raise ConfigError(f"reproduce: {folder} holds several runs; name one of them, {name}/ROW: {rows}")
    known = sorted({file.parent.relative_to(top).as_posix() for top in results for file in top.rglob("config.yaml")})
    listed = f"; there are {', '.join(known)}" if known else ""
    raise ConfigError(f"reproduce: there is no run in '{name}', nor below {RESULTS}{did_you_mean(name, known)}{listed}")


def reproduce(
    name: str,
    run_dir: str | Path | None = None,
    arguments: dict[str, Any] | None = None,
    model: str | type | None = None,
) -> dict[str, Any]:
    """Runs a finished run again with its own keys, which are in its ``config.yaml``.

    Folders and other keys of a machine are not the old run's but those of now. The new folder gets ``reproduced.json``
    with what is returned.

    Args:
        name: see ``found``.
        run_dir: folder of the new run; default as for ``run``.
        arguments: keys of the machine, such as ``data_path`` and ``use_gpu``, and places of files and folders that the
            run was made of; no others, since the run would be another.
        model: the class of a run of a model of your own, see ``load_run``.

    Returns:
        ``of``, the old folder; ``run_dir``, the new one; ``old`` and ``new``: test_result, best_valid_result, costs of
        either; and ``differences``, in words: the data or the versions that are not the same.

    Raises:
        ConfigError: there is no such run, a key would make it another, or whatever ``run`` raises.
    """
    folder, given = found(name), merge_keys(arguments=arguments)
    for key in given:
        if key.rpartition(".")[2] not in _MAY_BE_GIVEN:
            raise ConfigError(
                f"--{key}: reproduce runs a run as it was; 'run --config_files={folder / 'config.yaml'}' runs it with "
                "other keys"
            )
    settings = {key: value for key, value in read_settings(folder).items() if key not in MAY_CHANGE}
    made = Path(run(model, config_dict={**settings, **given}, run_dir=run_dir)["run_dir"])
    result = {"of": str(folder), "run_dir": str(made), "old": _results(folder), "new": _results(made)}
    result["differences"] = _differences(folder, made)
    write_json(made / REPORT, result)
    return result


def _results(folder: Path) -> dict[str, Any]:
    metrics, costs = read_json(folder / "metrics.json"), folder / "costs.json"
    kept = {name: metrics.get(name) for name in ("test_result", "best_valid_result")}
    return {**kept, "costs": read_json(costs) if costs.is_file() else {}}


def _differences(old: Path, new: Path) -> list[str]:
    """What is not the same and may explain other numbers; what an old folder does not say is not compared."""
    said = []
    if (old / "protocol.json").is_file():
        before, now = (read_json(folder / "protocol.json")["fingerprint"] for folder in (old, new))
        data = [key for key in before if before[key] != now.get(key)]
        said += [f"The data are not those of the old run: {', '.join(data)} differ."] if data else []
    if (old / "versions.json").is_file():
        before, now = (read_json(folder / "versions.json") for folder in (old, new))
        changed = [f"{key} {before[key]}, now {now.get(key)}" for key in before if before[key] != now.get(key)]
        changed = [words for words in changed if not words.startswith("finished ")]
        said += [f"Versions: {'; '.join(changed)}."] if changed else []
    return said


def to_console(result: dict[str, Any]) -> str:
    """Old and new numbers side by side, with their difference in percent."""
    lines = [("", "old", "new", "difference")]
    for part, title in (("best_valid_result", "validation"), ("test_result", "test")):
        old, new = (result[side][part] or {} for side in ("old", "new"))
        lines += [(f"{title} {metric}", *_values(old.get(metric), new.get(metric))) for metric in {**old, **new}]
    seconds = [format_seconds(result[side]["costs"].get("training_seconds")) for side in ("old", "new")]
    lines.append(("training", seconds[0], seconds[1], ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    return "\n".join([*table, "", *result["differences"]]).rstrip() + "\n"


def _values(old: float | None, new: float | None) -> tuple[str, str, str]:
    texts = [MISSING if value is None else f"{value:.4f}" for value in (old, new)]
    change = MISSING
    if old is not None and new is not None:
        change = f"{100 * (new / old - 1):+.1f} %" if old else "0" if new == old else MISSING
    return texts[0], texts[1], change
