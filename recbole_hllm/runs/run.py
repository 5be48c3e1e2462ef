"""run(): one experiment, the same for HLLM and for RecBole's models; load_run(): a finished one."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole.utils import ModelType, init_seed

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.parsing import fast_precision, from_file, from_words, read_yaml
from recbole_hllm.data.loader import check_sizes, data_preparation
from recbole_hllm.data.rows.dataset import SequenceDataset, create_dataset
from recbole_hllm.errors import ConfigError, UserError
from recbole_hllm.evaluation.metrics import known_metrics
from recbole_hllm.evaluation.segments import describe, segment_metrics, segment_table
from recbole_hllm.model.base.contract import Recommender, Weights
from recbole_hllm.processes import begin, current, ending_together
from recbole_hllm.registry import known_name, model_names
from recbole_hllm.runs.alike import check_same_data, check_same_program
from recbole_hllm.runs.effect import tell_of_run
from recbole_hllm.runs.folder import (
    add_evaluation,
    check_same_run,
    forgotten_unless_begun,
    keep_ranks,
    keep_scores,
    keep_settings,
    keep_training,
    keys_of_checkpoint,
    new_folder,
    read_settings,
    write_results,
)
from recbole_hllm.runs.prerequisites import complete
from recbole_hllm.runs.trained_on import check_trained_on, keep_trained_on
from recbole_hllm.storage.files import write_json
from recbole_hllm.storage.logs import check_wandb, logging_to
from recbole_hllm.training.checkpoint import checkpoints, load_model
from recbole_hllm.training.peak_memory import forget_peak_memory
from recbole_hllm.training.trainer import Trainer

_MASKS = {True: "on", False: "off", "both": "on and off"}


@dataclass
class Run:
    """A run read back from its folder: the config, the model with its best weights, and the data."""

    config: Config
    model: Recommender
    dataset: SequenceDataset
    train_data: object
    valid_data: object
    test_data: object
    run_dir: Path


@ending_together()
def run(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: dict[str, Any] | None = None,
    run_dir: str | Path | None = None,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Trains a model, evaluates its best weights and keeps everything in one folder.

    With ``resume`` the unfinished run in ``run_dir`` goes on with its own settings, keys given now on top; a training
    that has ended keeps the keys that made it. With ``evaluate_only`` its best weights are evaluated again, see
    ``evaluate_run``. A run's folder never says that code of a language model may run (``trust_remote_code``): only the
    keys given now do.

    Of several processes, which torchrun or deepspeed starts, each calls it: they train and evaluate together, the first
    one writes the folder, and all return the same.

    Args:
        model: model name, ours or RecBole's; a class of your own, or ``package.module:Class``.
        dataset: data set name.
        config_file_list: YAML files, RecBole's style.
        config_dict: keys and values, stronger than the files.
        run_dir: folder of the run; default ``runs/<dataset>/<model>-<time>``. One that holds a run is refused.
        arguments: keys and values of a command line, the strongest.

    Returns:
        RecBole's result: best_valid_score, valid_score_bigger, best_valid_result, test_result; and run_dir.

    Raises:
        UserError: with what is wrong, where, and what to do.
    """
    files, settings = as_files(config_file_list), None
    given = merge_keys(files, config_dict, arguments)
    if given.get("evaluate_only"):
        return evaluate_run(run_dir, {**given, **({"dataset": dataset} if dataset else {})}, model)
    if given.get("resume"):
        if not run_dir:
            raise ConfigError("resume: name the folder of the unfinished run, run_dir")
        settings = _settings(Path(run_dir), model or given.get("model"))
        config = Config(model, dataset, config_dict={**settings, **given})
    else:
        config = Config(model, dataset, files, config_dict, arguments)
        config.spec.model.check_keys(config)
        check_wandb(config)
    _meet(config)
    folder = new_folder(config, run_dir, settings)
    new = not given.get("resume")
    with _kept(folder, new, RunKeys.of(config).state):
        Trainer.check_keys(config)
        if current().is_first and not _is_row(files):  # the others have the same keys
            tell_of_run(config)
        complete(config, run_dir, run)  # of which an interrupted training can go on
        keep_settings(folder, config)
        with forgotten_unless_begun(folder, new, Exception):
            return _run(config, folder, settings)


@contextmanager
def _kept(folder: Path, new: bool, level: str | None) -> Iterator[None]:
    """A run's log, with the error of any process; an error of the user's before the first step frees the folder, and
    one before the next checkpoint leaves it as it was."""
    with keys_of_checkpoint(folder, new), forgotten_unless_begun(folder, new, UserError):
        with logging_to(folder / "run.log", level), ending_together():
            yield


def _meet(config: Config) -> None:
    """Where there are several processes, they must be alike."""
    settings = RunKeys.of(config)
    begin(settings.device, settings.process_minutes)
    check_same_program(config)


def _is_row(files: Any) -> bool:
    """Whether a run's files are those of a table of several models, which has warned of what no row reads."""
    models = [read_yaml(file).get("model") for file in files]
    return any(isinstance(names, list) and len(names) > 1 for names in models)


def _run(config: Config, folder: Path, saved: dict[str, Any] | None) -> dict[str, Any]:
    """Trains and evaluates.

    Args:
        saved: settings of the run in the folder, where it goes on.
    """
    start, settings = time.perf_counter(), RunKeys.of(config)
    forget_peak_memory(settings.device)  # of a prerequisite run
    if settings.precision == "bf16" != fast_precision(settings.device):
        logging.getLogger().warning(
            f"precision: bf16 on a {settings.device.type} without instructions for it is slower than fp32; try auto"
        )
    init_seed(settings.seed, settings.reproducibility)
    data = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, data)
    check_sizes(config, train_data, valid_data, test_data)
    check_same_data(data, (valid_data, test_data))
    if settings.resume and checkpoints(folder) and config.spec.model.type != ModelType.TRADITIONAL:
        check_trained_on(folder, data, goes_on=True)
    keep_trained_on(folder, data)
    _log_data(config, data, (train_data, valid_data, test_data))
    init_seed(settings.seed, settings.reproducibility)
    recommender = config.spec.build(config, train_data._dataset).to(settings.device)
    trainer = Trainer(config, recommender, folder)
    seconds = {"preparation_seconds": time.perf_counter() - start}
    show = settings.show_progress and current().is_first
    best_score, best_valid = trainer.fit(train_data, valid_data, show_progress=show)
    if saved and trainer.resumed_at == trainer.steps:
        keep_training(folder, saved, config, trainer.stop_reason)
    if valid_data and trainer.valid_ranks is None and not trainer.labelled:  # a resumed run whose best epoch was before
        trainer.evaluate(valid_data, show_progress=show)
        trainer.valid_ranks = trainer.eval_collector.take_ranks()
    result = {
        "best_valid_score": best_score,
        "valid_score_bigger": settings.valid_metric_bigger,
        "best_valid_result": best_valid,
        "test_result": trainer.evaluate(test_data, show_progress=show),
    }
    if current().is_first:
        _keep_evaluation(folder, data, trainer, test_data)
        seconds["total_seconds"] = time.perf_counter() - start
        write_results(folder, config, data, (valid_data, test_data), trainer, result, seconds)
    current().wait()
    logging.getLogger().info(f"test {result['test_result']}, all of it in {folder}")
    return {**result, "run_dir": str(folder)}


def _keep_evaluation(folder: Path, data: SequenceDataset, trainer: Trainer, test_data: Any) -> None:
    """The rank of each target, or the score of each labelled row, and metrics by segment of those of the test."""
    if trainer.labelled:
        scores = trainer.eval_collector.take_scores() if test_data else None
        keep_scores(folder, None if scores is None else describe(scores, data))
    else:
        ranks = {"valid": trainer.valid_ranks, "test": trainer.eval_collector.take_ranks()}
        keep_ranks(folder, **{phase: describe(kept, data) for phase, kept in ranks.items() if kept})
    if test_data:
        write_json(folder / "segments.json", segment_table(folder))


@ending_together()
def evaluate_run(
    run_dir: str | Path | None, config_dict: dict[str, Any] | None = None, model: str | type | None = None
) -> dict[str, Any]:
    """Evaluates a finished run again, with other keys if wanted, and adds ``evaluation-<n>.json`` to its folder.

    Args:
        run_dir: folder of the run.
        config_dict: keys such as topk, metrics, mask_history or eval_args to change.
        model: as for ``load_run``.

    Returns:
        valid_result, test_result and run_dir.

    Raises:
        ConfigError, ModelError: see ``load_run``.
    """
    changed = {key: value for key, value in merge_keys(config_dict=config_dict).items() if key != "evaluate_only"}
    loaded = load_run(run_dir, {**changed, "evaluate_only": True}, model)
    check_sizes(loaded.config, loaded.train_data, loaded.valid_data, loaded.test_data)
    folder, settings = loaded.run_dir, RunKeys.of(loaded.config)
    show = settings.show_progress and current().is_first
    with logging_to(folder / "run.log", settings.state), ending_together():
        trainer = Trainer(loaded.config, loaded.model, folder)
        trainer.eval_collector.data_collect(loaded.train_data)
        result = {
            "valid_result": trainer.evaluate(loaded.valid_data, show_progress=show),
            "test_result": trainer.evaluate(loaded.test_data, show_progress=show),
        }
        segments = {}
        if loaded.test_data:
            collector = trainer.eval_collector
            evaluated = collector.take_scores() if trainer.labelled else collector.take_ranks()
            assert evaluated is not None, "the test has rows"
            segments = {"segments": segment_metrics(describe(evaluated, loaded.dataset), loaded.config)}
        if current().is_first:
            add_evaluation(folder, {"changed": changed, **result, **segments})
        current().wait()
        logging.getLogger().info(f"valid {result['valid_result']}, test {result['test_result']}")
    return {**result, "run_dir": str(folder)}


def load_run(
    run_dir: str | Path | None, config_dict: dict[str, Any] | None = None, model: str | type | None = None
) -> Run:
    """Reads a finished run back: config, model with its best weights in evaluation mode, data set and loaders.

    Args:
        run_dir: folder of the run.
        config_dict: keys to change. ``trust_remote_code`` is taken from here only, never from the folder; with
            ``evaluate_only`` the ``valid_metric`` need not be among the metrics.
        model: the class, or its place, of a run of a model of your own: the folder has its name only, and imports no
            code. It can be registered before instead (``register_model``).

    Raises:
        ConfigError: no run in that folder, or one of another model or data set.
        ModelError: its weights are missing or damaged.
    """
    folder, config, data, loaders = load_data(run_dir, config_dict, model)
    keys = RunKeys.of(config)
    recommender = config.spec.build(config, loaders[0]._dataset, Weights.FOLLOW).to(keys.device)
    load_model(folder / "best", recommender)
    return Run(config, recommender.eval(), data, *loaders, folder)


def load_data(
    run_dir: str | Path | None, config_dict: dict[str, Any] | None = None, model: str | type | None = None
) -> tuple[Path, Config, SequenceDataset, tuple[Any, Any, Any]]:
    """Folder, config, data set and loaders (training, validation, test) of a finished run, without its weights;
    arguments and errors are those of ``load_run``."""
    if not run_dir:
        raise ConfigError("run_dir: name the folder of the finished run")
    folder = Path(run_dir)
    settings = _settings(folder, model or (config_dict or {}).get("model"))
    config = Config(model, config_dict={**settings, **(config_dict or {})})
    check_same_run(folder, settings, config)
    _meet(config)
    keys = RunKeys.of(config)
    init_seed(keys.seed, keys.reproducibility)
    data = create_dataset(config)
    loaders = data_preparation(config, data)
    check_trained_on(folder, data, goes_on=False)
    return folder, config, data, loaders


def _settings(folder: Path, model: str | type | None) -> dict[str, Any]:
    """Settings of the run in a folder; a class of the user's has to be given again.

    Raises:
        ConfigError: there is no run, or its model is not known.
    """
    settings = read_settings(folder)
    name = str(settings.get("model"))
    if model is None and name not in model_names():
        raise ConfigError(
            f"run_dir: {folder} is a run of {name}, and a folder never imports code: give the class again, "
            f"--model=package.module:{name}, in Python model="
        )
    return settings


def as_files(config_file_list: str | Path | Sequence[str | Path] | None) -> list[Any]:
    """A list of config files; a single one may come without, as for ``run``."""
    return [config_file_list] if isinstance(config_file_list, (str, Path)) else list(config_file_list or ())


def merge_keys(
    config_file_list: Iterable[str | Path] = (),
    config_dict: dict[str, Any] | None = None,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Keys of YAML files, a dict and a command line, later ones winning, in the types that YAML has; models and metrics
    by their names."""
    given = {key: from_file(value, key) for file in config_file_list for key, value in read_yaml(file).items()}
    for keys in (config_dict, arguments):
        given |= {key: from_words(value, key) for key, value in (keys or {}).items()}
    if isinstance(given.get("model"), (str, list)):
        models = given["model"].split(",") if isinstance(given["model"], str) else given["model"]
        named = [known_name(str(model).strip()) for model in models]
        given["model"] = ",".join(named) if isinstance(given["model"], str) else named
    if "metrics" in given:
        given["metrics"] = known_metrics(given["metrics"])
    return given


def _log_data(config: Config, data: SequenceDataset, loaders: Any) -> None:
    counts, settings = data.statistics(), RunKeys.of(config)
    parts, kind = [len(loader._dataset) if loader else 0 for loader in loaders], loaders[0]._dataset.rows.name
    logging.getLogger().info(
        f"{settings.model} on {settings.dataset}: {counts['users']} users, {counts['items']} items, "
        f"{counts['interactions']} interactions; rows: {parts[0]} training ({kind}), {parts[1]} validation, "
        f"{parts[2]} test; history mask {_MASKS[settings.mask_history]}; {settings.precision}; "
        f"seed {settings.seed}"
    )
