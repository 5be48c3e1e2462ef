"""When a training ends and why, and when it is validated."""

import math
from dataclasses import dataclass

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError

# Why a model that only counts, or compares what is there, stopped.
COUNTED_ONCE = "counted once"
EARLY = "early stopping"


def check_stopping(settings: RunKeys) -> None:
    """Raises ConfigError for keys that ask for two kinds of validation."""
    if settings.eval_every_steps is not None and settings.eval_step != 1:
        raise ConfigError(
            f"eval_every_steps: {settings.eval_every_steps} and eval_step: {settings.eval_step} contradict each other: "
            "validation comes after steps or after epochs; leave one of them out"
        )


@dataclass(frozen=True)
class Progress:
    """How far a training has come, from what a checkpoint keeps, so that a resumed run stops where it would have.

    Attributes:
        epochs: whole ones.
        steps: optimizer steps.
        without_better: validations since the best one.
        seconds: of training.
    """

    epochs: int
    steps: int
    without_better: int
    seconds: float


class Stopping:
    """The limits of a training.

    Args:
        settings: of the run.
        counts_only: the model sees the data once, and no other limit holds for it.
        pretraining: epochs of it, before those that ``epochs`` counts; none where that is 0.
    """

    def __init__(self, settings: RunKeys, counts_only: bool, pretraining: int = 0) -> None:
        self.settings, self.counts_only = settings, counts_only
        counted = 1 if counts_only else settings.epochs
        self.pretraining = pretraining if counted else 0
        self.epochs = self.pretraining + counted
        self.max_steps = None if counts_only else settings.max_steps
        self.eval_every_steps = None if counts_only else settings.eval_every_steps
        self.save_every_steps = None if counts_only else settings.save_every_steps
        self.eval_step = min(settings.eval_step, max(counted, 1))

    def all_steps(self, batches: int) -> int:
        """Optimizer steps of the whole training, at ``batches`` an epoch, where nothing ends it before."""
        steps = self.epochs * math.ceil(batches / self.settings.gradient_accumulation_steps)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def batches_of_epoch(self, batches: int, steps: int) -> int:
        """How many of an epoch's batches come before ``max_steps``, of an epoch that begins after so many steps."""
        if self.max_steps is None:
            return batches
        return min(batches, max(self.max_steps - steps, 0) * self.settings.gradient_accumulation_steps)

    def validates_after_epoch(self, epochs: int) -> bool:
        """Whether there is a validation after so many epochs."""
        counted = epochs - self.pretraining
        return self.eval_every_steps is None and self.eval_step > 0 and counted > 0 and counted % self.eval_step == 0

    def validates_after_step(self, steps: int, epochs: int) -> bool:
        """Whether there is a validation after so many steps, in the epoch after so many whole ones."""
        return self.eval_every_steps is not None and epochs >= self.pretraining and steps % self.eval_every_steps == 0

    def saves_after_step(self, steps: int) -> bool:
        """Whether there is a checkpoint after so many steps, beside those after epochs."""
        return self.save_every_steps is not None and steps % self.save_every_steps == 0

    def reason(self, progress: Progress) -> str | None:
        """Why to stop now; None: training goes on."""
        reason = self._reason(progress)
        if reason is not None and progress.epochs < self.pretraining:
            return f"{reason}, before the end of pre-training"
        return reason

    def _reason(self, progress: Progress) -> str | None:
        minutes = self.settings.max_training_minutes
        if progress.without_better > self.settings.stopping_step:
            return EARLY
        if progress.epochs >= self.epochs:
            return COUNTED_ONCE if self.counts_only else self._limit(self.epochs - self.pretraining, "epoch")
        if self.max_steps is not None and progress.steps >= self.max_steps:
            return self._limit(self.max_steps, "step")
        if minutes is not None and progress.seconds > 60 * minutes:
            return f"time limit of {_counted(minutes, 'minute')}"
        return None

    def _limit(self, number: int, what: str) -> str:
        limit = _counted(number, what)
        if self.pretraining and what == "epoch":
            limit += f" after {self.pretraining} of pre-training"
        # The learning rate has come down to 0: more epochs would be another schedule, not the rest of this one.
        return f"end of the schedule ({limit})" if self.settings.scheduler == "cosine" else f"limit of {limit}"


def _counted(number: float, what: str) -> str:
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {what}{'s' if number != 1 else ''}"
