"""Where a training is: what a checkpoint keeps of the loop, beside weights, optimizer and random states."""

import logging
from typing import Any

import numpy as np

from recbole_hllm.processes import current
from recbole_hllm.storage.files import finite
from recbole_hllm.training.schedule import go_to_step

# Attributes of the trainer, under their names.
_KEPT = ("epochs_run", "batch", "epoch_loss", "steps", "cur_step", "best_valid_result", "best_epoch",
         "training_seconds")  # fmt: skip


def loop_of(trainer: Any, batches: int) -> dict[str, Any]:
    """Plain values of all that the loop counts, with which ``take_up`` goes on.

    Args:
        trainer: a Trainer after an optimizer step, or after an epoch.
        batches: of an epoch.
    """
    score = float(trainer.best_valid_score)
    return {
        **{name: finite(getattr(trainer, name)) for name in _KEPT},
        "best_valid_score": score if np.isfinite(score) else None,
        "epoch_in": [batches, trainer.accumulation],
        "schedule_steps": trainer.schedule.last_epoch,
        "scaler": trainer.scaler.state_dict(),
        "model": {name: getattr(trainer.model, name) for name in trainer.model.WATCHED},
        "world_size": current().world_size,
    }


def take_up(trainer: Any, loop: dict[str, Any], batches: int) -> None:
    """Sets a trainer to where ``loop_of`` was asked; loops of earlier versions have ended epochs alone.

    Args:
        trainer: a new Trainer of the same run, with its schedule.
        loop: what ``loop_of`` gave.
        batches: of an epoch now. With others, or other accumulation, the epoch that had begun begins again.
    """
    for name in _KEPT:
        if name in loop:
            setattr(trainer, name, loop[name])
    # Earlier versions counted an epoch that a limit had ended inside, and could not go on with it.
    trainer.epochs_run -= loop.get("epochs_cut", 0)
    trainer.epoch = trainer.epochs_run - 1
    if loop["best_valid_score"] is not None:
        trainer.best_valid_score = loop["best_valid_score"]
    go_to_step(trainer.schedule, loop["schedule_steps"])
    trainer.scaler.load_state_dict(loop["scaler"])
    for name, value in loop.get("model", {}).items():
        setattr(trainer.model, name, value)
    _tell(trainer, loop, batches)


def _tell(trainer: Any, loop: dict[str, Any], batches: int) -> None:
    log, epoch, saved_by = logging.getLogger(), trainer.epochs_run, loop.get("world_size", 1)
    if saved_by != current().world_size:
        log.warning(
            f"the checkpoint is of {saved_by} processes, and now there are {current().world_size}: batches have the "
            "same rows, but drawn negatives and dropout are others"
        )
    if trainer.batch and loop["epoch_in"] != [batches, trainer.accumulation]:
        log.warning(f"epochs have other batches, or steps have, than in the checkpoint: epoch {epoch} begins again")
        trainer.batch, trainer.epoch_loss = 0, 0.0
    inside = f", batch {trainer.batch}," if trainer.batch else ""
    log.info(f"resuming with epoch {epoch}{inside} after step {trainer.steps}")
