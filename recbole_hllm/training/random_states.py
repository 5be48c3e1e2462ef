"""The random states of a process, as plain values."""

import base64
import random
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """Those of torch, on the CPU and on the GPU in use, of NumPy and of Python, for JSON."""
    of_numpy = np.random.get_state()
    assert isinstance(of_numpy, tuple), "not asked for as a dict"
    kind, keys, *rest = of_numpy
    version, internal, gauss = random.getstate()
    return {
        "torch": _words(torch.get_rng_state().numpy()),
        "cuda": _words(torch.cuda.get_rng_state().numpy()) if torch.cuda.is_available() else None,
        "numpy": [kind, _words(keys), *rest],
        "python": [version, _words(np.array(internal, np.uint32)), gauss],
    }


def restore(states: dict[str, Any]) -> None:
    """Draws go on as they did when ``random_states`` was asked."""
    torch.set_rng_state(torch.from_numpy(_numbers(states["torch"], np.uint8)))
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.from_numpy(_numbers(states["cuda"], np.uint8)))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, _numbers(keys, np.uint32), *rest))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(_numbers(internal, np.uint32).tolist()), gauss))


def _words(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def _numbers(words: str, kind: type) -> np.ndarray:
    return np.frombuffer(base64.b64decode(words), kind).copy()


def draw_apart(*numbers: int) -> None:
    """What torch draws from now on depends on these numbers alone, of which another process has others."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
