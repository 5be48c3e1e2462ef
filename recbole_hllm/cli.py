"""Command line: arguments to the function they ask for, and user errors without a traceback."""

import os
import sys
from pathlib import Path

from recbole_hllm.allocator import keep_freed_memory
from recbole_hllm.errors import ConfigError, UserError

_USAGE = """\
usage: python run_recbole_hllm.py --model=NAME[,NAME...] --dataset=NAME [--key=value ...]

  --model=HLLM              one model: train, evaluate, keep everything in one folder
  --model=HLLM,SASRec,Pop   several: one after the other, each in a process of its own, and one table
  --dataset=NAME            folder and file name under data_path; ml-100k comes with RecBole
  --config_files="A B"      YAML property files, RecBole's style; later ones win; --config_file is the same
  --run_dir=PATH            folder of the run (PATH/<Model>/ for several models); default under runs/
  --evaluate_only --run_dir=PATH [--key=value ...]   evaluate a finished run again, say with another topk
  --resume --run_dir=PATH   go on with an unfinished run, with its own model, dataset and keys
  --trials=4                runs of each model, values drawn from its key <Model>.search; the best on validation counts
  --training_stage=[1,2,3]  stages of HLLM's schedule, one after the other in one folder; --stage2.key=value for one
  --plan                    only estimate: parameters, tokens, FLOPs, memory, and time from a few timed steps
  --Model.key=value         a key for one of several models, such as --SASRec.n_layers=4
  --help [--model=NAME]     this page with the keys of every model [and those of one]

Every key of RecBole's property files works too, as --key=value or --key value. The environment variable
RECBOLE_HLLM_MALLOC=0 leaves glibc's memory allocator as it is: slower, with less memory held.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: arguments, ``sys.argv[1:]`` by default.

    Returns:
        Exit code: 0; 1 if a row of a table failed; 2 for an error that is the user's to fix.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    argv = sys.argv[1:] if argv is None else argv
    try:
        keep_freed_memory()
        if not argv or "--help" in argv or "-h" in argv:
            print(help_text(parse_arguments([a for a in argv if a not in ("--help", "-h")]).get("model")))
            return 0
        return _dispatch(parse_arguments(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _dispatch(arguments: dict[str, str]) -> int:
    files, run_dir = _config_files(arguments), _path("run_dir", arguments.pop("run_dir", ""))
    planned = _switched_on(arguments.pop("plan", "False"))
    # RecBole and PyTorch take seconds to load; --help and wrong arguments do not need them.
    from recbole_hllm.runs.run import merge_keys, run

    given = merge_keys(files, arguments=arguments)
    if run_dir and given.get("resume"):
        given = {**_keys_of_table(Path(run_dir)), **given}
    models, trials = given.get("model"), given.get("trials")
    models = models.split(",") if isinstance(models, str) else list(models or [])
    models = [model.strip() for model in models if model.strip()]
    arguments.pop("model", None)
    if trials is None and (planned or len(models) == 1):  # a table sees to it itself
        _refuse_keys_of_others(models, arguments)
    if given.get("training_stage") is not None:
        from recbole_hllm.runs.stages import run_stages

        if planned:
            raise ConfigError("--plan estimates one run: leave training_stage out and give the keys of one stage")
        run_stages(",".join(models), None, files, run_dir=run_dir, arguments=arguments)
        return 0
    if planned and trials is not None:
        raise ConfigError("--plan estimates one run of each model: leave trials out and multiply by them")
    if planned:
        from recbole_hllm.runs.plan import plan, plan_text

        for model in models or [None]:
            print(plan_text(plan(model, None, files, arguments=arguments)))
        return 0
    if trials is not None:
        from recbole_hllm.tables.search import search

        return 1 if search(models, None, files, run_dir=run_dir, arguments=arguments)["failed"] else 0
    if len(models) > 1:
        from recbole_hllm.tables.side_by_side import compare

        return 1 if compare(models, None, files, run_dir=run_dir, arguments=arguments)["failed"] else 0
    run(*models, config_file_list=files, run_dir=run_dir, arguments=arguments)
    return 0


def _keys_of_table(folder) -> dict:
    """Keys of the table in a folder: which models, and whether there are trials; none where it is no table's."""
    from recbole_hllm.config.parsing import read_yaml

    return read_yaml(folder / "keys.yaml") if (folder / "keys.yaml").is_file() else {}


def _refuse_keys_of_others(models, arguments) -> None:
    """A file's keys may be for models that are not run; those of the command line are meant for this run.

    Raises:
        ConfigError: one is for a model that is not among ``models``.
    """
    from recbole_hllm.registry import base_model, model_names

    for key in arguments if models else ():
        prefix = key.rpartition(".")[0]
        if base_model(prefix) in model_names() and prefix not in {*models, *map(base_model, models)}:
            raise ConfigError(
                f"--{key}: '{prefix}' is not a model of this run ({', '.join(models)}); keys of one that is trained "
                "before it have a key of their own, such as teacher_keys"
            )


def _switched_on(value: str) -> bool:
    """Raises ConfigError for a value of --plan other than True and False."""
    if value not in ("True", "False"):
        raise ConfigError(f"--plan takes no value, not '{value}'")
    return value == "True"


def _config_files(arguments: dict[str, str]) -> list[str]:
    """RecBole's style: several files in one value, parted by spaces; a single one may have spaces in its name.

    Raises:
        ConfigError: they are given under both names, or not named at all.
    """
    given = [key for key in ("config_files", "config_file") if key in arguments]
    if len(given) > 1:
        raise ConfigError("--config_file and --config_files are the same; give all files in one of them")
    value = _path(given[0], arguments.pop(given[0])) if given else None
    return [] if value is None else [value] if Path(value).is_file() else value.split()


def _path(key: str, value: str) -> str | None:
    """A path of the command line, None where it is empty.

    Raises:
        ConfigError: the key stands without a value.
    """
    if value == "True":
        raise ConfigError(f"--{key} needs a path: --{key}=PATH")
    return None if value in ("", "~", "None", "null") else value


def parse_arguments(argv: list[str]) -> dict[str, str]:
    """``--key=value``, ``--key value`` and ``--flag`` (True) as a dict of strings.

    Raises:
        ConfigError: a word that belongs to no key, or a key given twice with different values.
    """
    arguments: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise ConfigError(f"'{word}' belongs to no key: write --key=value (several words in quotes)")
        key, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "True"
        if arguments.get(key, value) != value:
            raise ConfigError(f"--{key} is given twice, as '{arguments[key]}' and as '{value}'")
        arguments[key] = value
    return arguments


def help_text(models: str | None = None) -> str:
    """Usage, our property file for every model, and those of the models named.

    Raises:
        ConfigError: a model without a property file.
    """
    from recbole_hllm.config.places import properties_folder, recbole_folder

    ours = properties_folder()
    recbole = recbole_folder() / "properties"
    parts = [_USAGE, (ours / "overall.yaml").read_text(encoding="utf-8")]
    for model in filter(None, map(str.strip, (models or "").split(","))):
        files = [recbole / "model" / f"{model}.yaml", *(ours / "model" / f"{name}.yaml" for name in _and_bases(model))]
        found = [file.read_text(encoding="utf-8").strip() for file in files if file.is_file()]
        if not found:
            raise ConfigError(f"model: there is no property file of a model named '{model}'")
        parts.append(f"# ---- {model} ----\n\n" + "\n\n".join(found) + "\n")
    return "\n".join(parts)


def _and_bases(model: str) -> list[str]:
    """The model and those of ours that it is built on, the keys of which it has too, the furthest first."""
    from recbole_hllm.registry import get_spec

    try:
        return [name.__name__ for name in reversed(get_spec(model).model.__mro__)]
    except UserError:  # one that RecBole has and this package refuses still has keys
        return [model]


if __name__ == "__main__":
    raise SystemExit(main())
