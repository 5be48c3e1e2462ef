"""A run's curve: what each validation found, and what the training had cost by then."""

from collections.abc import Mapping, Sequence
from typing import Any


def point(trainer: Any, result: Mapping[str, float], best: bool) -> dict[str, Any]:
    """A validation, as the curve keeps it; all processes ask at the same time.

    Args:
        trainer: a Trainer after a validation.
        result: metrics of the validation.
        best: its weights are the best so far, and kept.

    Returns:
        epoch and steps so far; loss, the mean of the epoch's batches so far, None before any; training_seconds,
        item_tokens and flops, see ``Throughput.spent``; the metrics as ``valid``, and ``best``.
    """
    return {
        "epoch": trainer.epoch,
        "steps": trainer.steps,
        "loss": trainer.epoch_loss / trainer.batch if trainer.batch else trainer.train_loss,
        "training_seconds": round(trainer.training_seconds, 3),
        **trainer.throughput.spent(),
        "valid": dict(result),
        "best": best,
    }


def cost_of_best(curve: Sequence[Mapping[str, Any]], whole: Mapping[str, float | None]) -> dict[str, float | None]:
    """What the training had cost when it reached the weights that are kept.

    Args:
        curve: points of the training, in order.
        whole: training_seconds, item_tokens and flops of all of it, which count where nothing was validated.

    Returns:
        seconds_to_best (of training, validations and preparation not counted), item_tokens_to_best and flops_to_best;
        None where it is not known: no texts are read, or the best validation was before the curve begins, in a run of
        an earlier version that went on.
    """
    best = [one for one in curve if one["best"]]
    reached = best[-1] if best else {} if curve else whole
    costs = {"seconds": "training_seconds", "item_tokens": "item_tokens", "flops": "flops"}
    return {f"{name}_to_best": reached.get(cost) for name, cost in costs.items()}
