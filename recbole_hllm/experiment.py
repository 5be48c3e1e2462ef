"""run(): one experiment, the same for HLLM and for RecBole's models; load_run(): a finished one."""

import logging
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from recbole.utils import init_seed

from recbole_hllm.config import Config, read_yaml
from recbole_hllm.data.dataset import SequenceDataset, create_dataset
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.training.checkpoint import load_model, read_json, write_json
from recbole_hllm.training.logs import logging_to
from recbole_hllm.training.trainer import Trainer


@dataclass
class Run:
    """A run read back from its folder: the config, the model with its best weights, and the data."""

    config: Config
    model: torch.nn.Module
    dataset: SequenceDataset
    train_data: object
    valid_data: object
    test_data: object
    run_dir: Path


def run(model=None, dataset=None, config_file_list=None, config_dict=None, run_dir=None, arguments=None) -> dict:
    """Trains a model, evaluates its best weights and keeps everything in one folder.

    Args:
        model: model name, ours or RecBole's.
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
    config = Config(model, dataset, config_file_list, config_dict, arguments)
    folder = _new_folder(config, run_dir)
    with logging_to(folder / "run.log", config["state"]):
        start = time.perf_counter()
        _write_config(folder, config)
        init_seed(config["seed"], config["reproducibility"])
        data = create_dataset(config)
        loaders = data_preparation(config, data)
        _log_data(config, data, loaders)
        init_seed(config["seed"], config["reproducibility"])
        recommender = config.spec.model(config, loaders[0]._dataset).to(config["device"])
        trainer = Trainer(config, recommender, folder)
        show = config["show_progress"]
        best_score, best_valid = trainer.fit(loaders[0], loaders[1], show_progress=show)
        result = {
            "best_valid_score": best_score,
            "valid_score_bigger": config["valid_metric_bigger"],
            "best_valid_result": best_valid,
            "test_result": trainer.evaluate(loaders[2], show_progress=show),
        }
        _keep_ranks(folder, trainer, loaders[1])
        _write_results(folder, config, data, loaders, trainer, result, time.perf_counter() - start)
        logging.getLogger().info(f"test {result['test_result']}, all of it in {folder}")
    return {**result, "run_dir": str(folder)}


def evaluate_run(run_dir, config_dict=None) -> dict:
    """Evaluates a finished run again, with other keys if wanted, and adds ``evaluation-<n>.json`` to its folder.

    Args:
        run_dir: folder of the run.
        config_dict: keys such as topk, metrics, mask_history or eval_args to change.
    """
    loaded = load_run(run_dir, config_dict)
    folder = loaded.run_dir
    with logging_to(folder / "run.log", loaded.config["state"]):
        trainer = Trainer(loaded.config, loaded.model, folder)
        trainer.eval_collector.data_collect(loaded.train_data)
        result = {
            "valid_result": trainer.evaluate(loaded.valid_data, show_progress=loaded.config["show_progress"]),
            "test_result": trainer.evaluate(loaded.test_data, show_progress=loaded.config["show_progress"]),
        }
        number = 1 + sum(1 for _ in folder.glob("evaluation-*.json"))
        changed = {key: value for key, value in (config_dict or {}).items()}
        write_json(folder / f"evaluation-{number}.json", {"changed": changed, **result})
        logging.getLogger().info(f"valid {result['valid_result']}, test {result['test_result']}")
    return {**result, "run_dir": str(folder)}


def load_run(run_dir, config_dict=None) -> Run:
    """Reads a finished run back: config, model with its best weights in evaluation mode, data set and loaders.

    Args:
        run_dir: folder of the run.
        config_dict: keys to change.

    Raises:
        ConfigError: no run in that folder.
        ModelError: its weights are missing or damaged.
    """
    folder = Path(run_dir)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"run_dir: there is no finished run in {folder}: no config.yaml")
    settings = {**read_yaml(folder / "config.yaml"), **(config_dict or {})}
    config = Config(settings.pop("model"), settings.pop("dataset"), config_dict=settings)
    config.weights_follow = True
    init_seed(config["seed"], config["reproducibility"])
    data = create_dataset(config)
    loaders = data_preparation(config, data)
    model = config.spec.model(config, loaders[0]._dataset).to(config["device"])
    state = load_model(folder / "best", model)
    if state["model"] != config["model"]:
        raise ModelError(f"{folder / 'best'} holds a {state['model']}, not a {config['model']}")
    return Run(config, model.eval(), data, *loaders, folder)


# ---- the run folder ----


def _new_folder(config, run_dir) -> Path:
    folder = Path(run_dir or Path("runs", config["dataset"], f"{config['model']}-{time.strftime('%Y%m%d-%H%M%S')}"))
    if (folder / "config.yaml").exists():
        if not config["resume"]:
            raise ConfigError(f"run_dir: {folder} already holds a run; name another folder, or give --resume=True")
        saved = read_yaml(folder / "config.yaml")
        if saved.get("model") != config["model"] or saved.get("dataset") != config["dataset"]:
            raise ConfigError(f"resume: {folder} is a run of {saved.get('model')} on {saved.get('dataset')}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir: cannot make {folder}: {error.strerror}") from error
    return folder


def _write_config(folder, config):
    settings = {"model": config["model"], "dataset": config["dataset"]}
    settings |= {key: value for key, value in config.settings.items() if key not in ("model", "dataset", "resume")}
    for key in ("config_files", "run_dir", "MODEL_TYPE"):
        settings.pop(key, None)
    text = yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def _plain(value):
    """Tuples, which YAML has no plain form for, as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _log_data(config, data, loaders):
    counts = data.statistics()
    parts = [len(loader._dataset) if loader else 0 for loader in loaders]
    logging.getLogger().info(
        f"{config['model']} on {config['dataset']}: {counts['users']} users, {counts['items']} items, "
        f"{counts['interactions']} interactions; rows: {parts[0]} training ({data.rows}), {parts[1]} validation, "
        f"{parts[2]} test; history mask {'on' if config['mask_history'] else 'off'}; seed {config['seed']}"
    )


def _keep_ranks(folder, trainer, valid_data):
    """Per-user ranks of the best weights: ranks-valid.npz and ranks-test.npz with arrays user, target, rank."""
    test_ranks = trainer.eval_collector.take_ranks()
    if valid_data and trainer.valid_ranks is None:  # a resumed run whose best epoch was before
        trainer.evaluate(valid_data)
        trainer.valid_ranks = trainer.eval_collector.take_ranks()
    for phase, ranks in (("valid", trainer.valid_ranks), ("test", test_ranks)):
        if ranks and len(ranks.get("rank", ())):
            np.savez_compressed(folder / f"ranks-{phase}.npz", **ranks)


def _write_results(folder, config, data, loaders, trainer, result, seconds):
    candidates = {"valid": None, "test": None}
    parts = {}
    for phase, loader in (("valid", loaders[1]), ("test", loaders[2])):
        if loader:
            candidates[phase], parts[phase] = loader.candidates, loader._dataset
    write_json(folder / "metrics.json", {"model": config["model"], "dataset": config["dataset"], **result})
    write_json(
        folder / "protocol.json",
        {
            "statistics": data.statistics(),
            "history_length": config["MAX_ITEM_LIST_LENGTH"],
            "seed": config["seed"],
            "eval_args": config["eval_args"],
            "mask_history": config["mask_history"],
            "fingerprint": fingerprint(data, parts, candidates),
        },
    )
    parameters = list(trainer.model.parameters())
    write_json(
        folder / "costs.json",
        {
            "parameters_total": sum(p.numel() for p in parameters),
            "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
            "epochs": trainer.epochs_run,
            "best_epoch": trainer.best_epoch,
            "converged": trainer.converged,
            "stop_reason": trainer.stop_reason,
            "training_seconds": round(trainer.training_seconds, 3),
            "evaluation_seconds": round(trainer.evaluation_seconds, 3),
            "total_seconds": round(seconds, 3),
            "peak_memory_bytes": _peak_memory(config["device"]),
            "device": _device_name(config["device"]),
        },
    )


def _peak_memory(device) -> int:
    """Bytes: the GPU's peak where one is used, the process's otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _device_name(device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"


