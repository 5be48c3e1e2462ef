"""What says that a training has failed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from recbole_hllm.errors import WRONG_VALUE, ConfigError, ModelError, UserError, words_of
from recbole_hllm.training.step_numbers import BatchPlace


def check_batch(model: Any, batch: BatchPlace, loss: float, terms: dict[str, float]) -> None:
    """Raises ModelError where the numbers of a batch are none, or the model's ``watch`` does."""
    try:
        model.watch(terms)
    except ModelError as error:
        raise ModelError(f"{batch}: {error}") from error
    if math.isnan(loss):
        advice = "try a smaller learning_rate or precision: fp32"
        if batch.step == 0:
            advice = "no weight has changed yet: look at the model's keys and float columns, or try precision: fp32"
        raise ModelError(f"the training loss of {batch} is not a number; {advice}")


def check_epoch(epoch: int, loss: float) -> None:
    """Raises ModelError where the loss of an epoch, or of what is over of it, is not finite."""
    if not math.isfinite(loss):
        raise ModelError(f"the training loss of epoch {epoch} is {loss}; try a smaller learning_rate")


def _of_memory(error: Exception) -> bool:
    """Whether NumPy, torch or a GPU had no memory: torch's errors of a CPU, and those of a worker, have no class of
    their own."""
    said = any(words in str(error) for words in ("allocate memory", "Unable to allocate"))
    return said or isinstance(error, (MemoryError, torch.OutOfMemoryError))


@contextmanager
def missing_memory_named() -> Iterator[None]:
    """Around batches, steps and validations: raises ConfigError where one does not fit into memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _of_memory(error):
            raise
        lines = str(error).splitlines()  # of torch's calls too, and those of a worker
        said = next((line for line in lines if "to allocate" in line), type(error).__name__)
        raise ConfigError(
            f"this training does not fit into memory ({said}); take a smaller train_batch_size or eval_batch_size, "
            "fewer negatives, or shorter histories and texts"
        ) from error


@contextmanager
def wrong_values_named(model: str, checked: bool) -> Iterator[None]:
    """RecBole's models check few values; what is wrong with one shows in the first batch.

    Args:
        model: its name.
        checked: a batch was computed already, or the model checks its values itself: errors stay what they are.

    Raises:
        ConfigError: the batch cannot be computed.
    """
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, *WRONG_VALUE) as error:
        if checked or _of_memory(error):
            raise
        raise ConfigError(
            f"{model} cannot compute its first batch with these keys and data: {words_of(error)}"
        ) from error
