"""A finished run of this package as a part of another model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from recbole_hllm.config.keys.language_models import ComputeKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.renamed import read_saved
from recbole_hllm.config.schema import Settings
from recbole_hllm.config.scopes import NOT_SAVED, PLACES
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.contract import Recommender, Weights
from recbole_hllm.model.base.id_table import check_same_training
from recbole_hllm.training.checkpoint import load_model

M = TypeVar("M", bound=nn.Module)

# Keys that say which interactions there are, and which of them are trained on.
_OF_THE_DATA = (
    "user_inter_num_interval", "item_inter_num_interval", "val_interval", "filter_inter_by_user_or_item",
    "rm_dup_inter", "benchmark_filename", "eval_args",
)  # fmt: skip


def over_default(settings: Settings, key: str) -> dict[str, Any]:
    """A key whose value is a dict of keys of a model: those given, and the default of each that is not."""
    return {**(settings.keys[key].default or {}), **(getattr(settings, key) or {})}


def check_same_data(settings: RunKeys, key: str, keys: Mapping[str, Any]) -> None:
    """Keys of a prerequisite run must not give it other interactions, or another split of them.

    Args:
        settings: of the run that needs it.
        key: that names them, such as ``teacher_keys``.
        keys: keys and values.

    Raises:
        ConfigError: one of them does; otherwise the error would come only after that run was trained.
    """
    for name in _OF_THE_DATA:
        if name in keys and keys[name] != getattr(settings, name):
            raise ConfigError(
                f"{key}: {name}: {keys[name]!r} would train on other data than this run, which has "
                f"{getattr(settings, name)!r}"
            )


def settings_of(
    folder: Path, key: str, models: Sequence[str] | None, dataset: Any, other_items: bool = False
) -> dict[str, Any]:
    """The keys and values of the run that ``key`` names.

    Args:
        models: which models it may be a run of; None: any.
        dataset: the training part of a data set; the run must have been trained on the same.
        other_items: a run of other items may have been trained on whatever it was.

    Raises:
        ConfigError: no finished run there, or one of another model or other data.
        ModelError: a damaged one.
    """
    wanted = " or ".join(models or ["a model"])
    if not (folder / "config.yaml").is_file() or not (folder / "costs.json").is_file():
        raise ConfigError(f"{key}: there is no finished run of {wanted} in {folder}")
    settings = read_saved(folder / "config.yaml")
    if models and str(settings.get("model")).partition("@")[0] not in models:
        raise ConfigError(f"{key}: {folder} is a run of {settings.get('model')}, not of {wanted}")
    check_same_training(folder, key, dataset, other_items)
    return settings


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, read back to be a part of another model.

    Attributes:
        config: its Config, on this machine's files and device.
        model: with its best weights, frozen, on the device, in evaluation mode.
        dataset: the training part of the data, as the run read them.
    """

    config: Any
    model: Recommender
    dataset: Any


def read_run(folder: str | Path, key: str, config: Any, dataset: Any) -> TrainedRun:
    """The finished run of any model, ours or RecBole's, that ``key`` names; no random number is drawn.

    Args:
        config: of the run that needs it.
        dataset: the training part of its data; the run must have been trained on the same.

    Raises:
        ConfigError: no finished run there, or one of other data, or of labelled rows.
        ModelError: a damaged one.
    """
    folder = Path(folder).expanduser()
    settings = settings_of(folder, key, None, dataset)
    if not (folder / "best").is_dir():
        raise ConfigError(f"{key}: {folder} has no weights, {folder / 'best'}; make this run again, or its whole table")
    made = _config_of(config, settings)
    if made.spec.rows.labelled:
        raise ConfigError(f"{key}: {folder} is a run of {RunKeys.of(made).model}, which scores labelled rows")
    with torch.random.fork_rng():
        train = create_dataset(made).build()[0]
        model = made.spec.build(made, train, Weights.FOLLOW).to(RunKeys.of(made).device)
    load_model(folder / "best", model)
    return TrainedRun(made, model.eval().requires_grad_(False), train)


def _config_of(config: Any, settings: Mapping[str, Any]) -> Any:
    """The Config of another run: where things lie, and what may run code, is as this run says."""
    own = {name: value for name, value in config.settings.items() if name in PLACES and name in settings}
    code = {"trust_remote_code": ComputeKeys.of(config).trust_remote_code or False}
    kept = {name: value for name, value in settings.items() if name not in NOT_SAVED}
    return type(config)(config_dict={**kept, **own, **code})


def with_best_weights(model: M, folder: Path, key: str) -> M:
    """A model made as the run's is, with its best weights, in evaluation mode.

    Raises:
        ModelError: they are missing, damaged, or of another model.
    """
    try:
        weights = load_file(folder / "best" / "weights.safetensors")
        model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{key}: {folder}/best is missing, damaged or of another model: {error}") from error
    return model.eval()
