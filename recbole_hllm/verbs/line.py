"""CommandLine: the words after a verb, as keys, files and a folder."""

from functools import cached_property
from pathlib import Path
from typing import Any

from recbole_hllm.doors import is_place, load_place
from recbole_hllm.errors import ConfigError

# Verb -> what asks for it on a line without a verb, the first found.
_ASKED_BY = {
    "plan": "--plan",
    "stages": "training_stage",
    "search": "trials",
    "compare": "more than one model",
    "evaluate": "evaluate_only",
}


class CommandLine:
    """The words of a command line.

    Files are read, and RecBole and PyTorch loaded, when ``given`` is first asked for.

    Attributes:
        arguments: keys of a config and their values, as text.
        files: property files, later ones win.
        run_dir: the folder named, or None.
        planned: ``--plan`` is among the words.

    The classes that ``--imports`` names are known afterwards.

    Args:
        words: ``--key=value``, ``--key value`` or ``--flag``.

    Raises:
        ConfigError: a word that belongs to no key, a key given twice, or a path that is missing.
    """

    def __init__(self, words: list[str]) -> None:
        self.arguments = parse_arguments(words)
        self.files = _config_files(self.arguments)
        self.run_dir = _path("run_dir", self.arguments.pop("run_dir", ""))
        self.planned = switched_on("plan", self.arguments.pop("plan", "False"))
        for place in self.arguments.pop("imports", "").split():
            _make_known(place)

    @cached_property
    def given(self) -> dict[str, Any]:
        """Keys and values of the files and the words; of a table that goes on, its own, too."""
        from recbole_hllm.runs.run import merge_keys

        given = merge_keys(self.files, arguments=self.arguments)
        if self.run_dir and given.get("resume"):
            given = {**_keys_of_table(Path(self.run_dir)), **given}
        return given

    @cached_property
    def models(self) -> list[str]:
        """Names of the models given."""
        models = self.given.get("model")
        models = models.split(",") if isinstance(models, str) else list(models or [])
        return [model.strip() for model in models if model.strip()]

    @property
    def model(self) -> str | None:
        """The model of one run; None where a folder or a default names it."""
        return self.models[0] if self.models else None

    @property
    def asked(self) -> str:
        """The verb that the keys ask for."""
        given = self.given
        asked = {
            "plan": self.planned,
            "stages": given.get("training_stage") is not None,
            "search": given.get("trials") is not None,
            "compare": len(self.models) > 1 or given.get("seeds") is not None,
            "evaluate": bool(given.get("evaluate_only")),
        }
        return next((verb for verb in _ASKED_BY if asked[verb]), "run")

    @property
    def own_arguments(self) -> dict[str, str]:
        """``arguments`` without the models, which are passed by name."""
        return {key: value for key, value in self.arguments.items() if key != "model"}

    def refuse_others(self, verb: str, *within: str) -> None:
        """Raises ConfigError where the keys ask for another verb than ``verb`` and those that it does ``within``."""
        if self.asked not in (verb, "run", *within):
            why = "seeds" if self.asked == "compare" and len(self.models) < 2 else _ASKED_BY[self.asked]
            raise ConfigError(f"{verb}: {why} asks for '{self.asked}'; leave one of the two out")

    def refuse_keys_of_others(self) -> None:
        """A file's keys may be for models that are not run; those of the command line are meant for this run.

        Raises:
            ConfigError: one is for a model that is not among ``models``.
        """
        from recbole_hllm.registry import base_model, model_names

        for key in self.arguments if self.models else ():
            prefix = key.rpartition(".")[0]
            if base_model(prefix) in model_names() and prefix not in {*self.models, *map(base_model, self.models)}:
                raise ConfigError(
                    f"--{key}: '{prefix}' is not a model of this run ({', '.join(self.models)}); keys of one that is "
                    "trained before it have a key of their own, such as teacher_keys"
                )


def parse_arguments(words: list[str]) -> dict[str, str]:
    """``--key=value``, ``--key value`` and ``--flag`` (True) as a dict of strings.

    Raises:
        ConfigError: a word that belongs to no key, or a key given twice with different values.
    """
    arguments: dict[str, str] = {}
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            from recbole_hllm.cli import VERBS

            hint = "; a verb is the first word" if word in VERBS else ""
            raise ConfigError(f"'{word}' belongs to no key: write --key=value (several words in quotes){hint}")
        key, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "True"
        if arguments.get(key, value) != value:
            raise ConfigError(f"--{key} is given twice, as '{arguments[key]}' and as '{value}'")
        arguments[key] = value
    return arguments


def _make_known(place: str) -> None:
    """Raises ConfigError for anything but the place of a recommender or a metric, ``package.module:Class``."""
    from recbole.evaluator.base_metric import AbstractMetric

    from recbole_hllm.evaluation.metrics import register_metric
    from recbole_hllm.registry import register_model

    if not is_place(place):
        raise ConfigError(f"--imports: '{place}' is not package.module:Class; separate several by spaces, in quotes")
    thing = load_place(place, f"--imports: {place}")
    of_metric = isinstance(thing, type) and issubclass(thing, AbstractMetric)
    (register_metric if of_metric else register_model)(thing)


def _keys_of_table(folder: Path) -> dict[str, Any]:
    """Keys of the table in a folder: which models, and whether there are trials; none where it is no table's."""
    from recbole_hllm.config.renamed import read_saved

    return read_saved(folder / "keys.yaml") if (folder / "keys.yaml").is_file() else {}


def switched_on(name: str, value: str) -> bool:
    """Raises ConfigError for a value of an option without one other than True and False."""
    if value not in ("True", "False"):
        raise ConfigError(f"--{name} takes no value, not '{value}'")
    return value == "True"


def _config_files(arguments: dict[str, str]) -> list[str]:
    """RecBole's style: several files in one value, separated by spaces; a single one may have spaces in its name.

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
