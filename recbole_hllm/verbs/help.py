"""Prints the verbs or the page of one, and the keys of all models and of those named.

usage: recbole-hllm help [VERB] [--model=NAME[,NAME...]]

  VERB                      what it does, and its keys; VERB --help is the same
  convert FORMAT            the page of a format of raw files
  --model=HLLM              every key of HLLM, with its default and its meaning
"""

from itertools import takewhile
from pathlib import Path

from recbole_hllm.cli import VERBS
from recbole_hllm.doors import package_of
from recbole_hllm.errors import ConfigError, UserError, did_you_mean
from recbole_hllm.verbs.line import parse_arguments

_USAGE = """\
usage: recbole-hllm [VERB] --model=NAME[,NAME...] --dataset=NAME [--key=value ...]
       python run_recbole_hllm.py [VERB] ... does the same in a clone

{verbs}

Without a verb it is run, or compare for several models. Often used:

  --model=HLLM              one model: train, evaluate, keep everything in one folder
  --model=HLLM,SASRec,Pop   several: one after the other, each in a process of its own, and one table
  --dataset=NAME            folder and file name under data_path; ml-100k comes with RecBole
  --config_files="A B"      YAML property files, RecBole's style; later ones win; --config_file is the same
  --run_dir=PATH            folder of the run (PATH/<Model>/ for several models); default under runs/
  --resume --run_dir=PATH   continue an unfinished run, with its own model, dataset and keys
  --Model.key=value         a key for one of several models, such as --SASRec.n_layers=4
  --evaluate_only, --trials, --training_stage, --plan   ask for evaluate, search, stages, plan

Every key of RecBole's property files works too, as --key=value or --key value. The environment variable
RECBOLE_HLLM_MALLOC=0 leaves glibc's memory allocator as it is: slower, with less memory held.
"""


def main(words: list[str]) -> int:
    """Prints a page, and keys."""
    words = list(words)
    verb = words.pop(0) if words and not words[0].startswith("-") else None
    if verb is None:
        print(help_text(parse_arguments(words).get("model")))
        return 0
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS) or "; the keys of a model: help --model=NAME"
        raise ConfigError(f"there is no verb named '{verb}'{hint}")
    module = VERBS.load(verb)
    names = list(takewhile(lambda word: not word.startswith("-"), words))  # a format, a data set
    if hasattr(module, "page"):
        print(module.page(names))
    else:
        print(module.__doc__, *_pages(parse_arguments(words[len(names) :]).get("model")), sep="\n")
    return 0


def help_text(models: str | None = None) -> str:
    """The verbs, our property file for every model, and those of the models named.

    Raises:
        ConfigError: a model without a property file.
    """
    from recbole_hllm.config.places import properties_folder

    verbs = "\n".join(f"  {verb:<10} {_summary(verb)}" for verb in VERBS)
    overall = (properties_folder() / "overall.yaml").read_text(encoding="utf-8")
    return "\n".join([_USAGE.format(verbs=verbs), overall, *_pages(models)])


def _summary(verb: str) -> str:
    """What a verb does, in a line; one that an installed package adds is not imported for it."""
    if verb in VERBS.rows:
        return VERBS.load(verb).__doc__.partition("\n")[0]
    return f"of the package {package_of(VERBS.installed()[verb])}"


def _pages(models: str | None) -> list[str]:
    """The property files of each model named; without one all of whose keys stand in a later one again."""
    pages = []
    for model in filter(None, map(str.strip, (models or "").split(","))):
        from recbole_hllm.config.parsing import read_yaml

        files = _files(model)
        later = [set().union(*map(read_yaml, files[place + 1 :])) for place in range(len(files))]
        found = [
            file.read_text(encoding="utf-8").strip()
            for file, keys in zip(files, later, strict=True)
            if not keys or not read_yaml(file).keys() <= keys
        ]
        if not found:
            raise ConfigError(f"model: there is no property file of a model named '{model}'")
        pages.append(f"# ---- {model} ----\n\n" + "\n\n".join(found) + "\n")
    return pages


def _files(model: str) -> list[Path]:
    """The model's and those of the models that it is built on, the keys of which it has too."""
    from recbole_hllm.config.places import properties_folder, recbole_folder
    from recbole_hllm.registry import base_model, get_spec, known_name, model_names, property_files

    name = base_model(known_name(model))
    try:
        return property_files(get_spec(name).model)
    except UserError:
        if name not in model_names():
            raise
        # One that RecBole has and this package refuses still has keys.
        folders = (properties_folder(), recbole_folder() / "properties")
        return [file for folder in folders if (file := folder / "model" / f"{name}.yaml").is_file()]
