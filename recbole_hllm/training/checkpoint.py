"""Checkpoints without pickle: tensors in safetensors, everything else in JSON."""

import logging
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import AbstractRecommender
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_hllm.errors import Damaged, ModelError
from recbole_hllm.processes import current
from recbole_hllm.storage.files import read_json, sync, write_json, writing
from recbole_hllm.storage.seal import check_seal, sync_folder

# The checkpoint before ``last``, in a run's folder.
PREVIOUS = "previous"
_PLAIN = (str, int, float, bool, type(None))


@contextmanager
def replacing(folder: Path, kept_as: Path | None = None) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` once all of it is on the disk, so that neither a kill nor a power
    cut leaves a mix.

    Args:
        folder: its files are all replaced.
        kept_as: where the former ones are kept, in place of those kept there before; None: nowhere.

    Raises:
        ConfigError: the disk is full or the folder cannot be written.
    """
    new, old = folder.with_name(f".{folder.name}.part"), kept_as or _replaced(folder)
    with writing(folder):
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        sync_folder(new)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(new, folder)
        sync(folder.parent)
        shutil.rmtree(_replaced(folder), ignore_errors=True)


def newest(folder: Path) -> Path:
    """The folder, or what it was to replace where a run was killed between the two steps of a replacement."""
    old = _replaced(folder)
    return old if old.exists() and not folder.exists() else folder


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def save_model(folder: Path, model: AbstractRecommender, state: dict[str, Any]) -> None:
    """Writes ``weights.safetensors`` and ``state.json``.

    RecBole models keep some state outside their weights (``other_parameter``): tensors go into the weights file,
    plain values into the JSON file, modules as their own weights.

    Raises:
        ModelError: a model keeps state of another kind.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    other = {}
    for name, value in model.other_parameter().items():
        if isinstance(value, torch.nn.Module):
            tensors.update({f"other.{name}.{key}": tensor for key, tensor in value.state_dict().items()})
        elif isinstance(value, torch.Tensor):
            tensors[f"tensor.{name}"] = value
        elif _is_plain(value):
            other[name] = value
        else:
            raise ModelError(
                f"{type(model).__name__}.{name} is a {type(value).__name__}, which a checkpoint cannot hold safely"
            )
    write_tensors(folder / "weights.safetensors", tensors)
    state = {"model": type(model).__name__, **state, "other_parameter": other}
    write_json(folder / "state.json", state)


def load_model(folder: Path, model: AbstractRecommender) -> dict[str, Any]:
    """Loads what ``save_model`` wrote into a model of the same shape and returns its state.

    Raises:
        Damaged: a file is missing or not as it was written.
        ModelError: it does not fit the model.
    """
    folder = newest(folder)
    check_seal(folder)
    tensors, state = read_tensors(folder / "weights.safetensors"), read_json(folder / "state.json")
    _check_state(folder / "state.json", state, tensors, model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    weights = _below("model.", tensors)
    try:
        model.load_state_dict(weights)
        for name, value in model.other_parameter().items():
            if isinstance(value, torch.nn.Module):
                value.load_state_dict(_below(f"other.{name}.", tensors))
    except RuntimeError as error:
        reason = _unlike(weights, model.state_dict()) or " ".join(str(error).split())
        raise ModelError(f"{folder}: the checkpoint does not fit {type(model).__name__}: {reason}") from error
    plain = {name: tensor.to(device) for name, tensor in _below("tensor.", tensors).items()}
    model.load_other_parameter({**plain, **state["other_parameter"]})
    return state


def _unlike(saved: dict[str, Any], own: dict[str, Any]) -> str:
    """What to do about weights that only one of the two has, or has in another shape; nothing where there are none."""
    names = [name for name in saved.keys() | own.keys() if name not in saved or name not in own]
    names += [name for name in saved.keys() & own.keys() if saved[name].shape != own[name].shape]
    shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    return f"{shown} differ; keys that a model is made of must be those of its training" if names else ""


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_state(file: Any, state: Any, tensors: Mapping[str, Tensor], model: Any) -> None:
    if not isinstance(state, dict) or not isinstance(state.get("other_parameter"), dict):
        raise ModelError(f"{file} is not the state of a checkpoint")
    if state.get("model") != type(model).__name__:
        raise ModelError(f"{file} belongs to a {state.get('model')}, not to a {type(model).__name__}")
    others = model.other_parameter()
    needed = {name for name, value in others.items() if not isinstance(value, torch.nn.Module)}
    saved = _below("tensor.", tensors).keys() | state["other_parameter"].keys()
    if saved != needed:
        raise ModelError(f"{file}: {sorted(saved ^ needed)} of {type(model).__name__} do not fit the checkpoint")


def save_training(
    folder: Path, optimizer: torch.optim.Optimizer, shuffling: torch.Generator, loop: dict[str, Any]
) -> None:
    """Writes what the next epoch needs besides the weights: optimizer, random generators and ``loop`` (plain)."""
    state = optimizer.state_dict()
    tensors, plain = {"rng.torch": torch.get_rng_state(), "rng.shuffling": shuffling.get_state()}, {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain[f"{index}.{name}"] = value
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    of_numpy = np.random.get_state()
    assert isinstance(of_numpy, tuple), "not asked for as a dict"
    kind, keys, *rest = of_numpy
    tensors["rng.numpy"] = torch.from_numpy(keys.astype(np.int64))
    write_tensors(folder / "training.safetensors", tensors)
    groups = [{k: v for k, v in group.items() if _is_plain(v)} for group in state["param_groups"]]
    version, internal, gauss = random.getstate()
    generators = {"numpy": [kind, *rest], "python": [version, list(internal), gauss]}
    write_json(folder / "training.json", {"loop": loop, "plain": plain, "groups": groups, "generators": generators})


def load_training(folder: Path, optimizer: torch.optim.Optimizer, shuffling: torch.Generator) -> dict[str, Any]:
    """Restores what ``save_training`` wrote and returns ``loop``.

    Raises:
        Damaged: a file is missing or damaged.
        ModelError: they belong to another optimizer.
    """
    folder = newest(folder)
    tensors, saved = read_tensors(folder / "training.safetensors"), read_json(folder / "training.json")
    try:
        _restore_optimizer(optimizer, tensors, saved)
        _restore_generators(shuffling, tensors, saved["generators"])
        return saved["loop"]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{folder}: the state of the training does not fit this run: {error}") from error


def checkpoints(run_dir: Path) -> list[Path]:
    """Those that a run can go on from, the newest first."""
    return [folder for folder in (newest(run_dir / "last"), run_dir / PREVIOUS) if folder.exists()]


def load_last(
    run_dir: Path, model: AbstractRecommender, engine: Any, shuffling: torch.Generator
) -> dict[str, Any]:
    """Loads the newest checkpoint that is whole, and returns its ``loop``. One that is damaged is put aside.

    Args:
        run_dir: the run's folder.
        model: of the run.
        engine: an Engine of this model.
        shuffling: the generator of the training rows' order.

    Raises:
        ModelError: none is whole, or they do not fit this run.
    """
    folders, damaged = checkpoints(run_dir), []
    for folder in folders:
        try:
            with engine.whole(changed=True):
                load_model(folder, model)
            engine.load(folder)
            loop = load_training(folder, engine.kept, shuffling)
        except Damaged as error:
            damaged.append(str(error))
            continue
        if folder.name == PREVIOUS:
            why = "; ".join(damaged) or f"{run_dir / 'last'} is missing"
            logging.getLogger().warning(f"{why}; going on with the checkpoint before it, {folder}")
        current().wait()
        for other in folders[: len(damaged)] if current().is_first else ():
            aside = run_dir / f"{other.name}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            with writing(aside):
                os.replace(other, aside)
        return loop
    raise ModelError(
        f"{run_dir} has no whole checkpoint to go on from: {'; '.join(damaged)}. Start again in another run_dir, or "
        f"move {' and '.join(folder.name for folder in folders)} away: then --resume begins from the beginning"
    )


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], saved: Any) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in _below("optimizer.", tensors).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    for name, value in saved["plain"].items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": saved["groups"]})


def _restore_generators(shuffling: Any, tensors: Mapping[str, Tensor], generators: Any) -> None:
    torch.set_rng_state(tensors["rng.torch"])
    shuffling.set_state(tensors["rng.shuffling"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    kind, *rest = generators["numpy"]
    np.random.set_state((kind, tensors["rng.numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = generators["python"]
    random.setstate((version, tuple(internal), gauss))


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes a safetensors file.

    Raises:
        ConfigError: the disk is full or the file cannot be written.
    """
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with writing(path):
        save_file(copies, path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file.

    Raises:
        Damaged: it is missing, or no such file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise Damaged(f"checkpoint {path} is missing or damaged: {error}") from error


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return isinstance(value, _PLAIN)
