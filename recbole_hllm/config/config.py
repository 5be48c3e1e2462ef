"""Config: RecBole's, plus our property files, plus the refusal of keys that nobody reads."""

import os
import re
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole.config import Config as RecBoleConfig
from recbole.utils import ModelType

from recbole_hllm import registry
from recbole_hllm.config.device import device_of
from recbole_hllm.config.nested import read_nested
from recbole_hllm.config.parsing import (
    YamlLoader,
    as_default,
    chosen_precision,
    from_file,
    from_words,
    keys_read_by_recbole,
    listed_keys,
    read_yaml,
    refuse_empty,
)
from recbole_hllm.config.places import properties_folder, recbole_folder
from recbole_hllm.config.renamed import refuse_renamed
from recbole_hllm.config.schema import DECLARED
from recbole_hllm.config.scopes import SHARED
from recbole_hllm.data.files.formats import find_table
from recbole_hllm.data.files.selected import ITEM_ATTRIBUTE, choose_selected
from recbole_hllm.data.labels import check_labelled_settings, has_label_column, reads_labels
from recbole_hllm.data.negatives import check_loss, check_negatives, compares_with_drawn
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError, UserError, did_you_mean
from recbole_hllm.evaluation.metrics import check_metrics, check_valid_metric, is_smaller_better, known_metrics
from recbole_hllm.processes import local_place
from recbole_hllm.registry import base_model, get_spec, known_name, model_names, recbole_base

# Arguments of the command line and of `run()`, which are no keys of a config.
_RUN_ARGUMENTS = {"config_files", "config_file", "run_dir"}
# Keys of several runs; no settings of one.
_SEARCH_KEYS = {"trials", "search", "seeds"}
# Keys that RecBole's code reads and that the program sets itself.
_DERIVED_KEYS = {
    "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "valid_neg_sample_args", "test_neg_sample_args", "device",
    "single_spec", "local_rank", "world_size", "nproc", "offset", "ip", "port",
}  # fmt: skip
# One protocol for every row of a table: RecBole's own for sequential models, and interactions that do not depend
# on which of the .user and .item files a model reads.
_PROTOCOL: dict[str, Any] = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
    "repeatable": True,
    "filter_inter_by_user_or_item": False,
}
# A model, or a variant of one.
_ROW_NAME = r"\w+(@[\w-]+)?"


class Config(RecBoleConfig):
    """RecBole's Config for a model of ours or of RecBole's.

    Order of strength: RecBole's property files, ours, ``config_file_list``, ``config_dict``, ``arguments``.
    A key ``<Model>.<key>``, wherever it is given, sets ``<key>`` for that model only and is stronger than ``<key>``;
    ``<Model>@<variant>.<key>`` is for that variant of it, and stronger still.

    Args:
        model: model name, or ``<Model>@<variant>``.
        dataset: data set name, the folder and file name under ``data_path``.
        config_file_list: YAML files, later ones win.
        config_dict: keys and values.
        arguments: keys and values of the command line; ``sys.argv`` itself is never read.

    Attributes:
        settings: every key and value needed to repeat the run, of plain YAML types. Given as ``config_dict`` they
            make an equal Config.
        spec: the model's row in the model table.

    Raises:
        ConfigError: an unknown key or model, an unreadable file, a value that cannot be used.
    """

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: str | Path | Sequence[str | Path] | None = None,
        config_dict: dict[str, Any] | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self._arguments = arguments or {}
        self._file_of_key: dict[str, str] = {}
        try:
            super().__init__(model, dataset, config_file_list, config_dict)
        except UserError:
            raise
        except (ValueError, TypeError, RuntimeError, AttributeError) as error:  # how RecBole says that a value is wrong
            raise ConfigError(f"config: {error}") from error
        if not reads_labels(self):  # RecBole would look for its column
            self["threshold"] = self.settings["threshold"] = None

    def with_values(self, values: Mapping[str, Any]) -> "Config":
        """The same Config with other values, for a part of its model that is a model of its own, such as a teacher."""
        changed = copy(self)
        changed.final_config_dict = {**self.final_config_dict, **values}
        return changed

    # ---- what the user gives ----

    def compatibility_settings(self) -> None:
        """Nothing to do: the package defines the missing NumPy names itself."""

    def _init_parameters_category(self) -> None:
        super()._init_parameters_category()
        # RecBole adds to these lists, which are its global ones.
        self.parameters: dict[str, list[str]] = {category: list(keys) for category, keys in self.parameters.items()}

    def _build_yaml_loader(self) -> type:
        return YamlLoader

    def _update_internal_config_dict(self, file: str | Path) -> dict[str, Any]:
        content = read_yaml(file)
        self.internal_config_dict.update(content)
        return content

    def _load_config_files(self, file_list: Any) -> dict[str, Any]:
        merged = {}
        for file in [file_list] if isinstance(file_list, (str, Path)) else file_list or []:
            content = read_yaml(file)
            merged.update({key: from_file(value, key) for key, value in content.items()})
            self._file_of_key.update(dict.fromkeys(content, f" in {file}"))
        return merged

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return {key: from_words(value, key) for key, value in config_dict.items()}

    def _load_cmd_line(self) -> dict[str, Any]:
        return self._convert_config_dict(self._arguments)

    def _get_model_and_dataset(self, model: str | type | None, dataset: str | None) -> tuple[str, Any, str]:
        given = self.external_config_dict
        model, dataset = model or given.get("model"), dataset or given.get("dataset")
        model = known_name(model) if isinstance(model, (str, type)) else model
        for key, value in (("model", model), ("dataset", dataset)):
            if not value:
                raise ConfigError(f"{key} is not set: give --{key}=NAME, or {key} in a config file or dict")
            if not isinstance(value, str):
                raise ConfigError(f"{key}: {value!r} is not a name")
        if not re.fullmatch(_ROW_NAME, model):
            raise ConfigError(
                f"model: '{model}' is neither a name nor NAME@VARIANT of letters, digits, - and _, nor "
                "package.module:Class"
            )
        row, model = model, base_model(model)
        self.spec = get_spec(model)
        for key in list(given):
            self._refuse_unknown_key(key)
        for prefix in dict.fromkeys((model, row)):
            self._apply_model_keys(prefix)
        for key in [key for key in given if "." in key]:
            del given[key]
        return model, self.spec.model, dataset

    def _refuse_unknown_key(self, shown: str) -> None:
        where = self._file_of_key.get(shown, "")
        prefix, dot, key = shown.rpartition(".") if isinstance(shown, str) else ("", "", str(shown))
        if dot and re.fullmatch(r"stage\d+", prefix):
            raise ConfigError(f"key '{shown}'{where} is for one stage of training_stage, and this is one run")
        if dot and base_model(prefix) not in model_names():
            raise ConfigError(f"key '{shown}'{where}: '{prefix}' is not a model{did_you_mean(prefix, model_names())}")
        if key in _RUN_ARGUMENTS and self.external_config_dict[shown]:
            raise ConfigError(f"'{shown}'{where} is an argument of the command line (or of run), not a key")
        if shown == "search" and self.external_config_dict[shown] is not None:
            raise ConfigError(f"'search'{where} is a key of one model: write <Model>.search")
        if key == "trials" and self.external_config_dict[shown] is not None:
            alone = "the same number for all models: --trials=4, or recbole_hllm.tables.search in Python"
            raise ConfigError(f"'{shown}'{where} is of a search, {alone}")
        if key == "seeds" and self.external_config_dict[shown] is not None:
            alone = "a single run has one: --seed=1"
            raise ConfigError(f"'{shown}'{where} is of a table, whose rows have a run with each of them; {alone}")
        if key in _DERIVED_KEYS:
            instead = "; see use_gpu and gpu_id" if key == "device" else ""
            raise ConfigError(f"key '{shown}'{where} is set by the program itself{instead}")
        if key in (own := registry.own_keys()):
            return
        refuse_renamed(str(shown), where, self.external_config_dict[shown])
        if key not in listed_keys() and not key.startswith("alias_of_") and key not in keys_read_by_recbole():
            raise ConfigError(f"unknown key '{shown}'{where}{did_you_mean(key, listed_keys() | own)}")

    def _apply_model_keys(self, name: str) -> None:
        """``SASRec.n_layers`` becomes ``n_layers`` when the model is SASRec."""
        given = self.external_config_dict
        for dotted in [key for key in given if key.startswith(f"{name}.")]:
            given[dotted.split(".", 1)[1]] = given[dotted]

    # ---- what it is merged with ----

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        base = recbole_base(model_class) if self.spec.own else model
        super()._load_internal_config_dict(base or model, model_class, dataset)
        self.internal_config_dict.update(deepcopy(_PROTOCOL))
        folder = properties_folder()
        # A model built on another of ours has the keys of both.
        models = [f"model/{name.__name__}.yaml" for name in reversed(model_class.__mro__)]
        for file in ("overall.yaml", *models, f"dataset/{dataset}.yaml"):
            if (folder / file).is_file():
                self._update_internal_config_dict(folder / file)
        for own in registry.own_files(model_class):
            self._load_own_keys(own)
        if self.spec.rows.labelled:
            self._update_internal_config_dict(folder / "labelled.yaml")

    def _load_own_keys(self, file: str | Path) -> None:
        """Defaults of a model of others; they cannot be of what the rows of a table share."""
        content = read_yaml(file)
        if shared := [key for key in content if key in SHARED]:
            raise ConfigError(f"{file}: '{shared[0]}' is shared by all rows of a table, so one model cannot set it")
        self.internal_config_dict.update({key: from_file(value, key) for key, value in content.items()})

    def _get_final_config_dict(self) -> dict[str, Any]:
        for key, value in read_nested(self.external_config_dict, self._file_of_key).items():
            self.external_config_dict[key] = as_default(key, value, self.internal_config_dict.get(key))
        final = super()._get_final_config_dict()
        final["metrics"] = known_metrics(final["metrics"])
        refuse_empty(final, self.internal_config_dict, self.model)
        self._check_values(final)
        self._choose_implementation(final)
        self._check_names(final)
        self._choose_rows(final)
        self._check_history_length(final)
        self._complete_eval_args(final)
        self._drop_default_negatives(final)
        self._check_loss(final)
        self._choose_precision(final)
        self._choose_masking(final)
        self._choose_labels(final)
        self._choose_feature_columns(final)
        self._load_action_field(final)
        final["data_path"] = os.path.abspath(final["data_path"])
        # Taken before RecBole adds objects and derived values.
        final.update(model=self.model, dataset=self.dataset)
        kept = final.keys() - _DERIVED_KEYS - _RUN_ARGUMENTS - _SEARCH_KEYS
        self.settings = {key: deepcopy(value) for key, value in final.items() if key in kept}
        return final

    def _check_values(self, final: dict[str, Any]) -> None:
        for key in (final.keys() & DECLARED.keys()) - registry.keys_of_its_own(self.model_class):
            final[key] = self.model_class.Keys.keys.get(key, DECLARED[key]).checked(final[key])

    def _check_names(self, final: dict[str, Any]) -> None:
        if final["training_stage"] is not None:
            raise ConfigError(
                f"training_stage: {final['training_stage']!r}: stages are several runs of one model, which the command "
                "line or run_stages starts, not a table, a plan or run"
            )
        referenced(final["reference"])
        names = final.get("text_keys") or []
        if not all(isinstance(name, str) for name in (names if isinstance(names, list) else [names])):
            raise ConfigError(f"text_keys: {names!r} is neither the name of a column nor a list of names")

    def _choose_rows(self, final: dict[str, Any]) -> None:
        """A model may have a key for its training rows."""
        rows = self.model_class.training_rows(final)
        if rows is not None:
            self.spec = replace(self.spec, rows=rows)

    def _check_history_length(self, final: dict[str, Any]) -> None:
        """RecBole's models are built for one length of history."""
        key = "MAX_ITEM_LIST_LENGTH_TEST"
        if not self.spec.rows.longer_in_evaluation and self.external_config_dict.get(key) is not None:
            way = f"; give HLLM.{key} for HLLM"
            if self.model_class.training_rows(final) is not None:
                way = f" with training_rows: {final['training_rows']}; take positions"
            raise ConfigError(f"{key}: {self.model} is evaluated with MAX_ITEM_LIST_LENGTH{way}")

    def _choose_implementation(self, final: dict[str, Any]) -> None:
        """An implementation of a model has defaults of its own; what the user gives is stronger."""
        defaults = self.model_class.IMPLEMENTATIONS
        if defaults:
            own = defaults[final["implementation"]]
            final.update({key: value for key, value in own.items() if key not in self.external_config_dict})

    def _complete_eval_args(self, final: dict[str, Any]) -> None:
        """RecBole fills missing parts with a random order and split, which no sequential model takes."""
        given = final["eval_args"]
        if isinstance(given, dict) and "order" not in given:
            ours = self.internal_config_dict if self.spec.rows.labelled else _PROTOCOL
            final["eval_args"] = {**deepcopy(ours["eval_args"]), **given}

    def _drop_default_negatives(self, final: dict[str, Any]) -> None:
        """RecBole's default draws a negative per row: its cross-entropy models refuse it, or take it for a positive
        (RepeatNet), and Pop would count it."""
        draws, kind = self.model_class.DRAWS_NEGATIVES and final.get("negatives") != "catalogue", self.model_class.type
        if kind == ModelType.TRADITIONAL:  # given or not: the same keys may be for a whole table, with Pop in it
            final["train_neg_sample_args"] = None
        elif "train_neg_sample_args" in self.external_config_dict:
            if not draws and final["train_neg_sample_args"]:
                raise ConfigError(
                    f"train_neg_sample_args: {self.model} compares with no drawn negatives; "
                    "leave it out, or give it to other models only (SASRec.train_neg_sample_args)"
                )
        elif kind == ModelType.SEQUENTIAL or not draws:
            drawn = compares_with_drawn(self.spec, final.get("loss_type"))
            if drawn is None:
                drawn = draws and final.get("loss_type") != "CE"
            if not drawn:
                final["train_neg_sample_args"] = None

    def _check_loss(self, final: dict[str, Any]) -> None:
        check_loss(self.model, self.spec, final.get("loss_type"))
        check_negatives(self.model, self.spec, final.get("loss_type"), final["train_neg_sample_args"])
        if self.spec.batch_norm and final["train_batch_size"] == 1:
            raise ConfigError(
                f"train_batch_size: 1: {self.model} normalises over the rows of a batch, which needs at least 2"
            )

    def _choose_precision(self, final: dict[str, Any]) -> None:
        """RecBole's ``enable_amp`` and ``enable_scaler`` keep working: they choose ``precision``."""
        given = self.external_config_dict
        if given.get("precision") is None and ("enable_amp" in given or final["precision"] is None):
            amp = "fp16" if final["enable_scaler"] else "bf16"
            final["precision"] = amp if final["enable_amp"] else "fp32"

    def _choose_masking(self, final: dict[str, Any]) -> None:
        """What RecBole's general models do when ``repeatable`` is False is what ``mask_history`` does for any model."""
        given = self.external_config_dict
        if given.get("repeatable") is False and self.model_class.type != ModelType.SEQUENTIAL:
            final["mask_history"] = True
            if given.get("mask_history") in (False, "both"):
                asked = f"mask_history: {given['mask_history']}"
                raise ConfigError(f"repeatable: False and {asked} contradict each other; leave one out")

    def _choose_labels(self, final: dict[str, Any]) -> None:
        """A column of labels in the data is stronger than our default of a threshold, not than the user's."""
        if not self.spec.rows.labelled:
            return
        if "threshold" not in self.external_config_dict:
            if has_label_column(self._table_file(final, "inter"), final):
                final["threshold"] = None
        check_labelled_settings(self.model, final)

    def _choose_feature_columns(self, final: dict[str, Any]) -> None:
        """``selected_features``, or S3Rec's ``item_attribute``: RecBole's default is the column of its own example, and
        another data set has other columns."""
        path, load = self._table_file(final, "item"), final["load_col"]
        key = next((name for name in ("selected_features", ITEM_ATTRIBUTE) if name in self.internal_config_dict), None)
        if key is None or not path.parent.is_dir():
            return
        selected = choose_selected(self.model, path, final, key, self.external_config_dict.get(key))
        final[key] = selected[0] if key == ITEM_ATTRIBUTE else selected
        if load is not None and load.get("item") != "*":
            wanted = [final["ITEM_ID_FIELD"], *(load.get("item") or []), *selected]
            final["load_col"] = {**load, "item": list(dict.fromkeys(wanted))}

    def _load_action_field(self, final: dict[str, Any]) -> None:
        """Columns that nobody names are not read."""
        field, load = final.get("action_field"), final["load_col"]
        columns = (load or {}).get("inter")
        if field is not None and isinstance(columns, list) and field not in columns:
            final["load_col"] = {**load, "inter": [*columns, field]}

    def _table_file(self, final: dict[str, Any], table: str) -> Path:
        name = self.dataset
        # RecBole reads ml-100k from its own folder, whatever data_path says.
        folder = recbole_folder() / "dataset_example" if name == "ml-100k" else Path(final["data_path"])
        return find_table(folder / name / f"{name}.{table}")

    # ---- checks of the whole ----

    def _set_default_parameters(self) -> None:
        final, labelled = self.final_config_dict, self.spec.rows.labelled
        metrics = [final["metrics"]] if isinstance(final["metrics"], str) else final["metrics"]
        check_metrics(metrics, labelled, self.model)
        final["metrics"] = ["AUC" if labelled else "Recall"]  # RecBole asks its own metrics of which kind they are
        super()._set_default_parameters()
        final["metrics"], final["valid_metric_bigger"] = metrics, not is_smaller_better(final["valid_metric"])
        # Nothing is chosen by it when a finished run is evaluated again, say with another topk.
        if not final["evaluate_only"]:
            both = final["mask_history"] == "both"
            check_valid_metric(final["valid_metric"], metrics, final["topk"], labelled, both)

    def _set_eval_neg_sample_args(self, phase: str) -> None:
        modes = self.final_config_dict["eval_args"]["mode"]
        mode = modes[phase] if isinstance(modes, dict) else modes
        if not re.fullmatch(r"full|labeled|(uni|pop)[1-9]\d*", str(mode)):
            raise ConfigError(f"eval_args: mode '{mode}' is not one of full, uniN, popN (N candidates)")
        super()._set_eval_neg_sample_args(phase)

    def _init_device(self) -> None:
        """One device for each process; CUDA_VISIBLE_DEVICES is the user's and stays as it is."""
        final = self.final_config_dict
        final["device"] = device_of(final["use_gpu"], final["gpu_id"], *local_place())
        final.update(single_spec=True, local_rank=0, world_size=1)
        # Not chosen with the other keys: it depends on the device.
        chosen = chosen_precision(final["precision"], final["device"], self.model, self.spec.model.AUTOCASTS)
        final["precision"] = self.settings["precision"] = chosen
