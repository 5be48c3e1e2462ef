"""Checkpoints without pickle: tensors in safetensors, everything else in JSON."""

import json
import os
import random
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recbole_hllm.errors import ModelError

_PLAIN = (str, int, float, bool, type(None))


def save_model(folder: Path, model: torch.nn.Module, state: dict) -> None:
    """Writes ``weights.safetensors`` and ``state.json``; both appear whole or not at all.

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
    write_json(folder / "state.json", {**state, "other_parameter": other})


def load_model(folder: Path, model: torch.nn.Module) -> dict:
    """Loads what ``save_model`` wrote into a model of the same shape and returns its state.

    Raises:
        ModelError: a file is missing or damaged, or does not fit the model.
    """
    tensors, state = read_tensors(folder / "weights.safetensors"), read_json(folder / "state.json")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    own = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(own)
        for name in (name for name, value in model.other_parameter().items() if isinstance(value, torch.nn.Module)):
            prefix = f"other.{name}."
            part = {key[len(prefix):]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            getattr(model, name).load_state_dict(part)
    except RuntimeError as error:
        raise ModelError(f"{folder}: the checkpoint does not fit {type(model).__name__}: {error}") from error
    plain = {name[7:]: tensor.to(device) for name, tensor in tensors.items() if name.startswith("tensor.")}
    model.load_other_parameter({**plain, **state["other_parameter"]})
    return state


def save_training(
    folder: Path, optimizer: torch.optim.Optimizer, shuffling: torch.Generator, loop: dict
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
    kind, keys, *rest = np.random.get_state()
    tensors["rng.numpy"] = torch.from_numpy(keys.astype(np.int64))
    write_tensors(folder / "training.safetensors", tensors)
    groups = [{k: v for k, v in group.items() if _is_plain(v)} for group in state["param_groups"]]
    version, internal, gauss = random.getstate()
    generators = {"numpy": [kind, *rest], "python": [version, list(internal), gauss]}
    write_json(folder / "training.json", {"loop": loop, "plain": plain, "groups": groups, "generators": generators})


def load_training(folder: Path, optimizer: torch.optim.Optimizer, shuffling: torch.Generator) -> dict:
    """Restores what ``save_training`` wrote and returns ``loop``."""
    tensors, saved = read_tensors(folder / "training.safetensors"), read_json(folder / "training.json")
    state = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    for name, value in saved["plain"].items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": saved["groups"]})
    torch.set_rng_state(tensors["rng.torch"])
    shuffling.set_state(tensors["rng.shuffling"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    kind, *rest = saved["generators"]["numpy"]
    np.random.set_state((kind, tensors["rng.numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = saved["generators"]["python"]
    random.setstate((version, tuple(internal), gauss))
    return saved["loop"]


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, temporary)
    os.replace(temporary, path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"checkpoint {path} is missing or damaged: {error}") from error


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is missing or damaged: {error}") from error


def _is_plain(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return isinstance(value, _PLAIN)
