"""Where a training is: what a checkpoint keeps of the loop, beside weights, optimizer and random states."""

import logging
from typing import Any

import numpy as np
from recbole.utils import calculate_valid_score

from recbole_hllm.errors import ConfigError
from recbole_hllm.processes import current
from recbole_hllm.storage.files import finite
from recbole_hllm.training.random_states import draw_apart, random_states, restore
from recbole_hllm.training.schedule import go_to_step

_LOG = logging.getLogger()
# Attributes of the trainer, under their names.
_KEPT = ("epochs_run", "batch", "epoch_loss", "steps", "cur_step", "best_valid_result", "best_epoch",
         "training_seconds", "curve")  # fmt: skip


def loop_of(trainer: Any, batches: int) -> dict[str, Any]:
    """Plain values of all that the loop counts, with which ``take_up`` goes on.

    Args:
        trainer: a Trainer after an optimizer step, or after an epoch.
        batches: of an epoch.
    """
    score, before = float(trainer.best_valid_score), trainer.random_before if trainer.batch else None
    return {
        **{name: finite(getattr(trainer, name)) for name in _KEPT},
        "best_valid_score": score if np.isfinite(score) else None,
        "epoch_in": [batches, trainer.accumulation],
        "schedule_steps": trainer.schedule.last_epoch,
        "scaler": trainer.scaler.state_dict(),
        "pretraining_epochs": trainer.stopping.pretraining,
        "model": {name: _plain(getattr(trainer.model, name)) for name in trainer.model.COUNTERS},
        "spent": trainer.throughput.spent(),
        "processes": current().gather({"before": before, "now": random_states()}),
    }


def take_up(trainer: Any, loop: dict[str, Any], batches: int) -> None:
    """Sets a trainer to where ``loop_of`` was asked; loops of earlier versions have ended epochs alone.

    Args:
        trainer: a new Trainer of the same run, with its schedule.
        loop: what ``loop_of`` gave.
        batches: of an epoch now. With others, or other accumulation, the epoch that had begun begins again.

    Raises:
        ConfigError: the training began with another number of epochs of pre-training.
    """
    began, now = loop.get("pretraining_epochs", 0), trainer.stopping.pretraining
    if began != now:
        raise ConfigError(
            f"this training began with {began} epochs of pre-training, and would have {now} now: resume with the same "
            "number, or take another run_dir"
        )
    for name in _KEPT:
        if name in loop:
            setattr(trainer, name, loop[name])
    trainer.resumed_at = trainer.steps
    # Earlier versions counted an epoch that a limit had ended inside, and could not go on with it.
    trainer.epochs_run -= loop.get("epochs_cut", 0)
    trainer.epoch = trainer.epochs_run - 1
    if loop["best_valid_score"] is not None:
        trainer.best_valid_score = loop["best_valid_score"]
    trainer.throughput.before = loop.get("spent", {})  # which earlier versions did not count
    go_to_step(trainer.schedule, loop["schedule_steps"])
    trainer.scaler.load_state_dict(loop["scaler"])
    for name, value in loop.get("model", {}).items():
        is_array = isinstance(getattr(trainer.model, name), np.ndarray)
        setattr(trainer.model, name, np.array(value) if is_array else value)
    if trainer.batch and loop["epoch_in"] != [batches, trainer.accumulation]:
        _LOG.warning("epochs have other batches, or steps have, than in the checkpoint: the epoch begins again")
        trainer.batch, trainer.epoch_loss = 0, 0.0
    _take_up_random(trainer, loop.get("processes", [None]))
    inside = f", batch {trainer.batch}," if trainer.batch else ""
    _LOG.info(f"resuming with epoch {trainer.epochs_run}{inside} after step {trainer.steps}")


def take_result(trainer: Any, best: dict[str, Any]) -> None:
    """Sets a trainer's best result to that of its best weights. It is another where these are of a training that was
    interrupted after it had kept them and before its next checkpoint, and what was computed again came out worse.

    Args:
        trainer: a Trainer at its end.
        best: state that was kept with the weights; earlier versions kept no result.
    """
    result = best.get("valid_result")
    if result is None or result == finite(trainer.best_valid_result):
        return
    _LOG.warning(
        f"the best weights are those after step {best['steps']} of the training that was interrupted, better than all "
        "that came after its checkpoint was taken up"
    )
    trainer.best_epoch, trainer.best_valid_result, trainer.valid_ranks = best["epoch"], result, None
    trainer.best_valid_score = calculate_valid_score(result, trainer.valid_metric)


def _take_up_random(trainer: Any, states: list[Any]) -> None:
    """Sets the random states to those of this process, and the model to what it was in the epoch that has begun."""
    processes = current()
    another_number = len(states) != processes.world_size
    if another_number and processes.is_first:
        _LOG.warning(
            f"the checkpoint is of {len(states)} processes, and now there are {processes.world_size}: batches have the "
            "same rows and drawn negatives, but dropout and what a model draws are others"
        )
    elif another_number:  # what was loaded are the states of the first process
        draw_apart(trainer.settings.seed, processes.rank, trainer.steps)
    own = None if another_number else states[processes.rank]
    if trainer.batch:
        trainer.random_before = own["before"] if own else random_states()
        restore(trainer.random_before)
        trainer.model.train()  # some models draw then what they need until the next time
    if own:
        restore(own["now"])


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
