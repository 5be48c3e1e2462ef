"""The user model of an export as an ONNX file, for onnxruntime, Triton and others that know no torch.

Inputs are the vectors of a history's items, which ``vectors.safetensors`` has, and how many are real; what the model
reads beside them has an input of its own. The output is the vector of each user as items' vectors are multiplied with
it.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_hllm.errors import MissingExtra, ModelError
from recbole_hllm.nn.user_models.base import Histories, UserModel
from recbole_hllm.serving.served import Served, ServedVectors

ONNX = "user_model.onnx"
# Most that a number of a user's vector may differ from torch's.
TOLERANCE = 1e-4
_KINDS = ("SASRecUser", "LiGRUser", "UserLLM")
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Axes of an input that may have any size.
_AXES = {
    "vectors": {0: "users", 1: "history"},
    "lengths": {0: "users"},
    "items": {0: "users", 1: "history"},
    "times": {0: "users", 1: "history"},
    "at": {0: "users"},
}
_YEAR_2000, _YEAR_2030 = 946_684_800, 1_893_456_000


def check_packages() -> None:
    """Raises MissingExtra where the packages are not installed."""
    for package in _PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtra(package, "onnx", "--onnx") from error


def check_onnx(served: Served, model: str) -> None:
    """Raises ModelError where a user model is of another kind than those of HLLM and the SASRec family.

    Args:
        served: that has it.
        model: its name, for the error.
    """
    kind = type(served.user_model).__name__ if isinstance(served, ServedVectors) else type(served).__name__
    if kind not in _KINDS:
        raise ModelError(
            f"--onnx: {model} is not written as ONNX; HLLM, SASRec, SASRecNCE, SASRecCE, SASRecSS, gSASRec and "
            "eSASRec are"
        )


def inputs_of(user_model: UserModel) -> list[str]:
    """Names of the inputs of a user model's file.

    ``vectors`` (B, S, C) float32 and ``lengths`` (B,) int64 always; where they are read, ``items`` (B, S) int64 numbers
    of the items, ``times`` (B, S) float64 seconds of each and ``at`` (B,) float64 seconds of the request.
    """
    settings, names = user_model.settings, ["vectors", "lengths"]
    if settings.get("n_items"):
        names.append("items")
    if user_model.reads_times:
        names.append("times")
        if settings["time_of"] == "next":
            names.append("at")
    return names


@torch.no_grad()
def write_onnx(served: ServedVectors, path: Path) -> float:
    """Writes the user model, and compares what the file computes with torch.

    Args:
        served: that ``check_onnx`` has let through.
        path: of the file; the weights of a model of more than 1.5 GB lie beside it.

    Returns:
        The largest difference found, at most `TOLERANCE`.

    Raises:
        ModelError: torch cannot export the model, or the file computes something else.
    """
    reader = _Reader(served).eval()
    example = _example(served, users=3, history=min(5, served.length))
    axes = {name: _AXES[name] for name in example}
    with _quiet():
        try:
            program = torch.onnx.export(
                reader,
                kwargs=example,
                dynamo=True,
                dynamic_shapes=axes,
                input_names=list(example),
                output_names=["users"],
                verbose=False,
            )
        except Exception as error:  # torch raises many kinds of them
            raise ModelError(f"--onnx: torch cannot export this user model: {error}") from error
    _forget_places(program.model)
    program.save(str(path))
    return _largest_difference(reader, served, path)


class _Reader(nn.Module):
    """What the file computes: ``ServedVectors.users`` of vectors in place of numbers."""

    def __init__(self, served: ServedVectors) -> None:
        super().__init__()
        self.user_model, self.cosine = served.user_model, served.cosine

    def forward(
        self,
        vectors: Tensor,
        lengths: Tensor,
        items: Tensor | None = None,
        times: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """(B, E) vectors of the users."""
        if items is None:
            items = torch.zeros_like(vectors[..., 0], dtype=torch.long)
        users = self.user_model(Histories(vectors, items, lengths, times, at)).float()
        return F.normalize(users, dim=-1) if self.cosine else users


def _example(served: ServedVectors, users: int, history: int) -> dict[str, Tensor]:
    """Histories of items that there are, the first as long as it can be."""
    draw = torch.Generator().manual_seed(users * 1000 + history)
    items = torch.randint(min(1, len(served.read) - 1), len(served.read), (users, history), generator=draw)
    lengths = torch.randint(1, history + 1, (users,), generator=draw)
    lengths[0] = history
    items *= torch.arange(history) < lengths[:, None]
    times = torch.rand(users, history + 1, generator=draw, dtype=torch.float64) * (_YEAR_2030 - _YEAR_2000) + _YEAR_2000
    times = times.sort(dim=1).values.floor()
    device = served.read.device
    every = {
        "vectors": served.read[items.to(device)], "lengths": lengths, "items": items,
        "times": times[:, :-1].contiguous(), "at": times[:, -1].contiguous(),
    }  # fmt: skip
    return {name: every[name].to(device) for name in inputs_of(served.user_model)}


def _largest_difference(reader: _Reader, served: ServedVectors, path: Path) -> float:
    """Between torch and the file, over users and histories of several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for users, history in {(1, 1), (2, served.length), (5, max(1, served.length // 2))}:
        example = _example(served, users, history)
        wanted = reader(**example).cpu().numpy()
        found = session.run(None, _arrays(example))[0]
        difference = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("nan")
        if not difference <= TOLERANCE:
            raise ModelError(
                f"--onnx: of {users} users with {history} items the file gives other vectors than torch: they differ "
                f"by {difference:.2g}, more than {TOLERANCE}; export without --onnx"
            )
        largest = max(largest, difference)
    return largest


def _arrays(example: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in example.items()}


def _forget_places(model: Any) -> None:
    """Takes the lines of code out of a file that nodes come from, with paths of the machine that writes it."""
    graphs = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    model.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's words about packages that this needs none of."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
