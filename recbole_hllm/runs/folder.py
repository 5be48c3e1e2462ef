"""The folder that a run leaves: its config, log, metrics, ranks, costs and weights."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from recbole.utils import ModelType

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.next_item import HistoryKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.renamed import read_saved
from recbole_hllm.config.scopes import LIMITS, NOT_SAVED, OF_OUTPUT, OF_VALIDATION, SOURCES, WITHOUT_WEIGHT
from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.errors import ConfigError
from recbole_hllm.processes import current
from recbole_hllm.runs.runs_read import with_runs_read
from recbole_hllm.runs.trained_on import TRAINED_ON
from recbole_hllm.runs.versions import versions
from recbole_hllm.storage.cache import held_by
from recbole_hllm.storage.files import finite, json_text, write_json, write_whole, writing
from recbole_hllm.training.curve import cost_of_best
from recbole_hllm.training.latency import user_latency
from recbole_hllm.training.peak_memory import peak_memory
from recbole_hllm.training.trainer import Trainer

# Keys of what is several runs in one folder: a table, a search, stages.
KEYS = "keys.yaml"
# What a run writes; a folder that holds any of it is not written to. A log alone is that of a start that failed.
_FILES = ("config.yaml", "metrics.json", "costs.json", "protocol.json", "ranks-valid.npz", "ranks-test.npz",
          "segments.json", "scores-test.npz", "curve.json", "versions.json", "picked.json")  # fmt: skip
_CHECKPOINTS = ("best", "last", "previous")
_FOLDERS = (*_CHECKPOINTS, "tensorboard")


def new_folder(config: Config, run_dir: str | Path | None, resumed: dict[str, Any] | None = None) -> Path:
    """Makes the folder with its config.yaml; the first process does, and all others must see it.

    Args:
        resumed: settings of the run in the folder that goes on, from ``read_settings``; None for a new run.

    Raises:
        ConfigError: it holds another run already, or cannot be written.
    """
    settings, processes = RunKeys.of(config), current()
    folder = Path(processes.first_of(str(run_dir or unused_folder(settings.dataset, settings.model))))
    with processes.together():
        if processes.is_first:
            if resumed is None:
                refuse_existing(folder, (*_FILES, *_FOLDERS, KEYS))
            else:
                check_same_run(folder, resumed, config)
                _check_same_validation(folder, resumed, config)
            make_folder(folder)
            if resumed is None:
                keep_settings(folder, config)
    with processes.together():
        if not (folder / "config.yaml").is_file():
            raise ConfigError(
                f"run_dir: {folder.absolute()} was made by process 0, and this process, on another machine perhaps, "
                "does not see it; name a folder on a disk that all share"
            )
    return folder


@contextmanager
def forgotten_unless_begun(folder: Path, new: bool, errors: type[Exception]) -> Iterator[None]:
    """Where a run fails before its first training step, its folder stays free for the corrected one.

    Its log stays, for tables that say why a row failed.

    Args:
        new: False for a run that goes on, whose folder is left as it is.
        errors: other exceptions leave the folder of a run that can go on.
    """
    try:
        yield
    except errors:
        if new and current().is_first and not any((folder / name).exists() for name in _FOLDERS):
            for name in ("config.yaml", TRAINED_ON):
                (folder / name).unlink(missing_ok=True)
        raise


@contextmanager
def keys_of_checkpoint(folder: Path, new: bool) -> Iterator[None]:
    """Where a run that goes on fails before its next checkpoint, its config.yaml is again what it was: keys that were
    given now and are wrong are no part of the run.

    Args:
        new: the run does not go on; nothing is done.
    """
    if new or not current().is_first:  # asked now: a process that has failed is alone
        yield
        return
    path, last = folder / "config.yaml", folder / "last"
    before, saved = path.read_text(encoding="utf-8"), _made(last)
    try:
        yield
    except Exception as error:
        if isinstance(error, TrainingEnded) or _made(last) == saved:
            write_whole(path, before)
        raise


def _made(folder: Path) -> int | None:
    return folder.stat().st_mtime_ns if folder.is_dir() else None


def keep_settings(folder: Path, config: Config) -> None:
    """Writes the run's config.yaml, in the first process."""
    if current().is_first:
        write_yaml(folder / "config.yaml", saved_keys(config.settings))


def saved_keys(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys and values without those of one call, ``<Model>.<key>`` included."""
    return {key: value for key, value in keys.items() if key.rpartition(".")[2] not in NOT_SAVED}


def read_settings(folder: Path) -> dict[str, Any]:
    """Keys and values of the run in a folder.

    Raises:
        ConfigError: there is none, or it is a stage whose stage before is gone.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"run_dir: there is no run in {folder}: no config.yaml")
    return _beside_stage_before(folder, saved_keys(read_saved(folder / "config.yaml")))


def _beside_stage_before(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """A stage is made of the export of the one before, which lies beside it still where their folder was moved."""
    export = Path(settings.get("pretrained_hllm") or "")
    if export.is_dir() or not re.fullmatch(r"stage-\d/export", "/".join(export.parts[-2:])):
        return settings
    beside = folder.resolve().parent.joinpath(*export.parts[-2:])
    if not beside.is_dir():
        raise ConfigError(
            f"run_dir: {folder} is a stage made of {export}, which is not there, and nor is {beside}; the folders of "
            "all stages stay together, so move the whole schedule or nothing"
        )
    return {**settings, "pretrained_hllm": str(beside)}


def unused_folder(dataset: str, name: str) -> Path:
    """runs/<dataset>/<name>-<time>, with a number after it where two start within a second."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return next(folder for folder in (Path("runs", dataset, name) for name in names) if not folder.exists())


def check_same_run(folder: Path, saved: dict[str, Any], config: Config) -> None:
    """Raises ConfigError where the settings of the run in a folder are of another model or data set."""
    settings = RunKeys.of(config)
    if (saved.get("model"), saved.get("dataset")) != (settings.model, settings.dataset):
        raise ConfigError(
            f"run_dir: {folder} is a run of {saved.get('model')} on {saved.get('dataset')}, "
            f"not of {settings.model} on {settings.dataset}"
        )


class TrainingEnded(ConfigError):
    """Keys were given with which nothing was trained."""


def keep_training(folder: Path, saved: dict[str, Any], config: Config, reason: str | None) -> None:
    """Writes to config.yaml the limits with which the training in a folder has ended, and no step was made since.

    Args:
        saved: settings of the run before.
        reason: why it has ended.

    Raises:
        TrainingEnded: it was made with other values than those now, of which files that it read may lie elsewhere.
    """
    for key in sorted(saved.keys() - WITHOUT_WEIGHT - OF_OUTPUT - LIMITS):
        before, now = saved[key], config.settings.get(key)
        # As text, too: that of a RecBole default, 'None', is read back as nothing.
        if before != now and str(before) != str(now) and not (key in SOURCES and _may_be(before, now)):
            raise TrainingEnded(
                f"{key}: the training in {folder} has ended ({reason}), and was made with {before!r}, not with "
                f"{now!r}; train in another folder, raise the limit that ended this training, or evaluate it "
                "otherwise with --evaluate_only"
            )
    if current().is_first:
        limits = {key: saved[key] for key in LIMITS & saved.keys()}
        write_yaml(folder / "config.yaml", saved_keys({**config.settings, **limits}))


def _may_be(before: Any, now: Any) -> bool:
    """Whether what was read may lie at another place now: the first is gone from a disk, or both hold the same."""
    is_gone = isinstance(before, str) and Path(before).is_absolute() and not Path(before).exists()
    return is_gone or bool(held_by(before) == held_by(now))


def _check_same_validation(folder: Path, saved: dict[str, Any], config: Config) -> None:
    """Raises ConfigError where the epochs of a training that goes on would be compared otherwise than those before."""
    if config.spec.model.type == ModelType.TRADITIONAL or not any((folder / name).is_dir() for name in _CHECKPOINTS):
        return
    for key in sorted(OF_VALIDATION & saved.keys()):
        if saved[key] != config.settings.get(key):
            raise ConfigError(
                f"{key}: epochs of the training in {folder} were compared with {saved[key]}, and not "
                f"{config.settings.get(key)}; let it go on as it is, and evaluate it otherwise with --evaluate_only"
            )


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Raises ConfigError where writing these names into a folder would overwrite something."""
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"run_dir: {folder} already holds a run ({', '.join(there)}); name another folder, or resume it: "
            "--resume=True"
        )


def none_begun(folder: Path) -> bool:
    """Whether a folder holds a table, a search or stages of which no run got as far as its first training step."""
    return (folder / KEYS).is_file() and any(folder.rglob("run.log")) and not any(folder.rglob("config.yaml"))


def make_folder(folder: Path) -> None:
    """Raises ConfigError where a folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir: cannot make {folder}: {error.strerror}") from error


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Writes a YAML file, which appears whole or not at all. Raises ConfigError where it cannot be written."""
    write_whole(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def keep_ranks(folder: Path, **ranks_of: dict[str, Any] | None) -> None:
    """Per-user ranks of the best weights: ranks-valid.npz and ranks-test.npz, each with the arrays given."""
    for phase, ranks in ranks_of.items():
        if ranks and len(ranks["rank"]):
            with writing(path := folder / f"ranks-{phase}.npz"):
                np.savez_compressed(path, **ranks)


def keep_scores(folder: Path, scores: dict[str, Any] | None) -> None:
    """Scores of the test's labelled rows by the best weights: scores-test.npz, with the arrays given."""
    if scores:
        with writing(path := folder / "scores-test.npz"):
            np.savez_compressed(path, **scores)


def add_evaluation(folder: Path, content: dict[str, Any]) -> None:
    """Writes evaluation-<n>.json after those there are; none of them is overwritten."""
    with writing(folder / "evaluation-<n>.json"):
        while True:
            there = (re.fullmatch(r"evaluation-([0-9]+)\.json", path.name) for path in folder.iterdir())
            number = 1 + max((int(match[1]) for match in there if match), default=0)
            try:
                with open(folder / f"evaluation-{number}.json", "x", encoding="utf-8") as file:
                    file.write(json_text(finite(content)))
                return
            except FileExistsError:  # another evaluation, at the same time
                continue


def write_results(
    folder: Path,
    config: Config,
    data: SequenceDataset,
    loaders: Any,
    trainer: Trainer,
    result: dict[str, Any],
    seconds: dict[str, Any],
) -> None:
    """Writes metrics.json, protocol.json (what rows of one table have in common) and costs.json.

    Args:
        loaders: of validation and test, None where there is none.
        trainer: after ``fit`` and the evaluation of the test.
        result: what ``run`` returns, without run_dir.
        seconds: preparation_seconds, from the start to the first epoch (data, model, and what it computes once, such as
            vectors of a frozen language model, where no cache has it), and total_seconds.
    """
    loaders = {phase: loader for phase, loader in zip(("valid", "test"), loaders, strict=True) if loader}
    parts = {phase: loader._dataset for phase, loader in loaders.items()}
    candidates = {phase: loader.candidates for phase, loader in loaders.items()}
    settings = HistoryKeys.of(config)
    length, test_length = settings.MAX_ITEM_LIST_LENGTH, settings.MAX_ITEM_LIST_LENGTH_TEST
    write_json(folder / "metrics.json", finite({"model": settings.model, "dataset": settings.dataset, **result}))
    write_json(folder / "curve.json", finite(trainer.curve))
    write_json(folder / "versions.json", versions())
    write_json(
        folder / "protocol.json",
        {
            "statistics": data.statistics(),
            "history_length": length,
            "history_length_test": (test_length or length) if config.spec.rows.longer_in_evaluation else length,
            "seed": settings.seed,
            "precision": settings.precision,
            "eval_args": settings.eval_args,
            "eval_targets": settings.eval_targets,
            "eval_users": settings.eval_users,
            "mask_history": settings.mask_history,
            "fingerprint": fingerprint(data, parts, candidates),
        },
    )
    trained = {} if trainer.epochs else {"parameters_trained": 0}
    spent = {"training_seconds": round(trainer.training_seconds, 3), **trainer.spent}
    alone = current().world_size == 1
    costs = {
        **trainer.parameters,
        **trained,
        "epochs": trainer.epochs_begun,
        "steps": 0 if trainer.counts_only else trainer.steps,
        "best_epoch": trainer.best_epoch,
        "converged": trainer.converged,
        "stop_reason": trainer.stop_reason,
        **spent,
        **cost_of_best(trainer.curve, {} if trainer.best_valid_result else spent),
        "evaluation_seconds": round(trainer.evaluation_seconds, 3),
        "scoring_seconds": None if trainer.labelled else round(trainer.scoring_seconds, 4),
        "users_per_second": _rate(trainer.scored_rows, trainer.scoring_seconds) if "test" in loaders else None,
        "user_latency_ms": user_latency(trainer, loaders.get("test")) if alone else None,
        **{name: round(value, 3) for name, value in seconds.items()},
        "disk_bytes": sum(file.stat().st_size for file in (folder / "best").rglob("*") if file.is_file()),
        "peak_memory_bytes": peak_memory(settings.device),
        "device": _device_name(settings.device),
        "throughput": trainer.rates,
    }
    write_json(folder / "costs.json", with_runs_read(costs, config))


def _rate(number: float, seconds: float) -> float | None:
    return number / seconds if seconds else None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
