"""Config: RecBole's, plus our property files, plus the refusal of keys that nobody reads."""

import ast
import copy
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
import yaml
from recbole.config import Config as RecBoleConfig
from recbole.utils import ModelType

from recbole_hllm.data.reader import read_header
from recbole_hllm.errors import ConfigError
from recbole_hllm.properties_path import properties_folder
from recbole_hllm.registry import get_spec, model_names

# Keys of the command line and of `run()` themselves, which no property file lists.
_RUN_KEYS = {"model", "dataset", "config_files", "run_dir"}
# Keys that RecBole writes into a Config and that a saved config may therefore hold.
_DERIVED_KEYS = {"MODEL_TYPE"}
# The evaluation protocol of every row of a table: RecBole's own for sequential models.
_PROTOCOL = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
    "repeatable": True,
}
# Columns that hold an item's category in public data sets, in order of preference.
_USUAL_FEATURES = ("class", "categories", "category", "genres", "genre", "brand", "tag", "tags")
_PLAIN = (str, int, float, bool, list, tuple, dict, type(None))


class Config(RecBoleConfig):
    """RecBole's Config for a model of ours or of RecBole's.

    Order of strength: RecBole's property files, ours, ``config_file_list``, ``config_dict``, ``arguments``.
    A key ``<Model>.<key>`` sets ``<key>`` for that model only.

    Args:
        model: model name.
        dataset: data set name, the folder and file name under ``data_path``.
        config_file_list: YAML files, later ones win.
        config_dict: keys and values.
        arguments: keys and values of the command line; ``sys.argv`` itself is never read.

    Raises:
        ConfigError: an unknown key or model, an unreadable file, a value that cannot be used.
    """

    def __init__(
        self,
        model: str | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | Path] | None = None,
        config_dict: dict | None = None,
        arguments: dict | None = None,
    ):
        self._arguments = dict(arguments or {})
        super().__init__(model, dataset, config_file_list, copy.deepcopy(config_dict))

    # ---- what the user gives ----

    def compatibility_settings(self):
        """Nothing to do: the package defines the missing NumPy names itself."""

    def _init_parameters_category(self):
        super()._init_parameters_category()
        self.parameters = {category: list(keys) for category, keys in self.parameters.items()}

    def _build_yaml_loader(self):
        return _YamlLoader

    def _load_config_files(self, file_list):
        merged = {}
        for file in file_list or []:
            merged.update(read_yaml(file))
        return merged

    def _convert_config_dict(self, config_dict):
        return {key: parse_value(value) for key, value in config_dict.items()}

    def _load_cmd_line(self):
        return self._convert_config_dict(self._arguments)

    def _get_model_and_dataset(self, model, dataset):
        given = self.external_config_dict
        model, dataset = model or given.get("model"), dataset or given.get("dataset")
        for key, value in (("model", model), ("dataset", dataset)):
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{key} is not set: give --{key}=NAME, or {key} in a config file or dict")
        self.spec = get_spec(model)
        self._apply_model_keys(model)
        self._refuse_unknown_keys()
        return model, self.spec.model, dataset

    def _apply_model_keys(self, model):
        """``SASRec.n_layers`` becomes ``n_layers`` when the model is SASRec and is dropped when it is another."""
        given = self.external_config_dict
        for dotted in [key for key in given if "." in key]:
            prefix, key = dotted.split(".", 1)
            if prefix not in model_names():
                raise ConfigError(f"{dotted}: '{prefix}' is not a model{_hint(prefix, model_names())}")
            self._refuse_unknown_key(key, dotted)
            value = given.pop(dotted)
            if prefix == model:
                given[key] = value

    def _refuse_unknown_keys(self):
        for key in self.external_config_dict:
            self._refuse_unknown_key(key, key)

    @staticmethod
    def _refuse_unknown_key(key, shown):
        known = listed_keys()
        if key in known or key.startswith("alias_of_") or key in keys_read_by_recbole():
            return
        raise ConfigError(f"unknown key '{shown}'{_hint(key, known)}")

    # ---- what it is merged with ----

    def _load_internal_config_dict(self, model, model_class, dataset):
        super()._load_internal_config_dict(model, model_class, dataset)
        ranking = self.internal_config_dict["MODEL_TYPE"] != ModelType.CONTEXT
        self.internal_config_dict.update(copy.deepcopy(_PROTOCOL) if ranking else {})
        folder = properties_folder()
        for file in ("overall.yaml", f"model/{model}.yaml", f"dataset/{dataset}.yaml"):
            if (folder / file).is_file():
                self._update_internal_config_dict(folder / file)

    def _get_final_config_dict(self):
        final = super()._get_final_config_dict()
        self._drop_default_negatives(final)
        self._choose_precision(final)
        self._choose_selected_features(final)
        final["data_path"] = os.path.abspath(final["data_path"])
        # Everything a run needs to be repeated, before RecBole adds objects and derived values.
        self.settings = {key: copy.deepcopy(value) for key, value in final.items() if isinstance(value, _PLAIN)}
        return final

    def _drop_default_negatives(self, final):
        """RecBole's default draws a negative per row: its cross-entropy models refuse it, and Pop would count it."""
        given = "train_neg_sample_args" in self.external_config_dict
        full_softmax = final.get("loss_type") == "CE" and not hasattr(self.model_class, "input_type")
        if not given and (full_softmax or self.model_class.type == ModelType.TRADITIONAL):
            final["train_neg_sample_args"] = None

    def _choose_precision(self, final):
        """RecBole's ``enable_amp`` and ``enable_scaler`` keep working: they choose ``precision``."""
        if final.get("precision") is None:
            amp = "fp16" if final.get("enable_scaler") else "bf16"
            final["precision"] = amp if final.get("enable_amp") else "fp32"
        if final["precision"] not in ("fp32", "bf16", "fp16"):
            raise ConfigError(f"precision: '{final['precision']}' is not one of fp32, bf16, fp16")

    def _choose_selected_features(self, final):
        """RecBole's default is the column of its own example; another data set has other columns."""
        if "selected_features" not in final:
            return
        name = self.dataset
        path = Path(final["data_path"], name) if name != "ml-100k" else _recbole_folder() / "dataset_example" / name
        header = read_header(path / f"{name}.item") if (path / f"{name}.item").is_file() else {}
        id_field = final["ITEM_ID_FIELD"]
        columns = [column for column, kind in header.items() if "token" in kind.value and column != id_field]
        if "selected_features" not in self.external_config_dict:
            usual = [column for column in _USUAL_FEATURES if column in columns] + columns
            final["selected_features"] = usual[:1]
        missing = [column for column in final["selected_features"] if column not in header]
        if missing or not final["selected_features"]:
            raise ConfigError(
                f"selected_features: {self.model} needs a column of {path / name}.item"
                + (f", which has no {missing}" if missing else "")
                + f"; token columns there: {columns or 'none'}"
            )
        load = dict(final.get("load_col") or {})
        if final.get("load_col") is not None and load.get("item") != "*":
            wanted = [id_field, *load.get("item", []), *final["selected_features"]]
            final["load_col"] = {**load, "item": list(dict.fromkeys(wanted))}

    def _set_default_parameters(self):
        mask = self.final_config_dict.get("mask_history")
        if not isinstance(mask, bool):
            raise ConfigError(f"mask_history: {mask!r} is neither True nor False")
        super()._set_default_parameters()
        topk_metric = self.final_config_dict["valid_metric"].lower()
        if "@" in topk_metric:
            self._check_valid_metric(topk_metric)

    def _check_valid_metric(self, valid_metric):
        name, k = valid_metric.split("@", 1)
        metrics = {metric.lower() for metric in self.final_config_dict["metrics"]}
        if name not in metrics or k not in {str(k) for k in self.final_config_dict["topk"]}:
            raise ConfigError(
                f"valid_metric: '{valid_metric}' is not computed; metrics are {self.final_config_dict['metrics']}, "
                f"topk is {self.final_config_dict['topk']}"
            )

    def _init_device(self):
        """One process, one device; CUDA_VISIBLE_DEVICES is the user's and stays as it is."""
        final = self.final_config_dict
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("WORLD_SIZE is above 1: training in several processes is not supported yet")
        gpu_id = str(final["gpu_id"]).strip("()[] ").split(",")[0].strip()
        use_gpu = final["use_gpu"] and gpu_id != "" and torch.cuda.is_available()
        final["device"] = torch.device("cuda", int(gpu_id)) if use_gpu else torch.device("cpu")
        final.update(single_spec=True, local_rank=0, world_size=1)


# ---- helpers of Config, public where others need them ----


class _YamlLoader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as RecBole's property files expect, and never builds Python objects."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(file: str | Path) -> dict:
    """Reads a YAML mapping.

    Raises:
        ConfigError: no such file, not YAML (names the line), or not a mapping.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            content = yaml.load(stream, Loader=_YamlLoader)
    except OSError as error:
        raise ConfigError(f"config file {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {file} is not readable YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"config file {file}: expected 'key: value' lines, found a {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def parse_value(value):
    """A string from the command line as the Python literal it spells, or the string itself; never evaluated."""
    if not isinstance(value, str):
        return value
    words = {"true": True, "false": False, "null": None, "none": None, "~": None}
    if value.lower() in words:
        return words[value.lower()]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _hint(name, known):
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def _recbole_folder() -> Path:
    return Path(find_spec("recbole").origin).parent


@lru_cache(maxsize=1)
def listed_keys() -> frozenset[str]:
    """Every key of RecBole's argument lists and of any property file, RecBole's or ours."""
    from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

    keys = _RUN_KEYS | _DERIVED_KEYS
    keys |= {*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments}
    for file in [*_recbole_folder().glob("properties/**/*.yaml"), *properties_folder().glob("**/*.yaml")]:
        if file.stem not in ("url", "kg_url"):
            keys |= {key.split(".", 1)[-1] for key in read_yaml(file)}
    return frozenset(keys)


@lru_cache(maxsize=1)
def keys_read_by_recbole() -> frozenset[str]:
    """Every key that RecBole's code looks up in a config, found in its source; read only for unlisted keys."""
    lookup = re.compile(r"""config(?:\[|\.get\()\s*["']([A-Za-z_]\w*)["']""")
    keys = set()
    for file in _recbole_folder().glob("**/*.py"):
        keys.update(lookup.findall(file.read_text(encoding="utf-8")))
    return frozenset(keys)
