"""Learning rate over the steps of a run."""

import math

import torch

from recbole_hllm.errors import ConfigError


def check_schedule(kind: str | None, warmup_ratio: float) -> None:
    """Raises ConfigError for a warm-up outside 0..1."""
    if kind == "cosine" and not 0 <= warmup_ratio < 1:
        raise ConfigError(f"warmup_ratio: {warmup_ratio} must be at least 0 and below 1")


def build_schedule(
    optimizer: torch.optim.Optimizer, kind: str | None, total_steps: int, warmup_ratio: float, start_at_zero: bool
) -> torch.optim.lr_scheduler.LambdaLR:
    """A scheduler to step after each optimizer step.

    Args:
        kind: ``none`` keeps the learning rate; ``cosine`` raises it over the first ``warmup_ratio`` of the steps and
            lowers it to 0 along half a cosine.
        start_at_zero: the official HLLM code's warm-up, whose first step changes nothing.

    Raises:
        ConfigError: a warm-up outside 0..1.
    """
    check_schedule(kind, warmup_ratio)
    if kind != "cosine":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    warmup = warmup_ratio * total_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step if start_at_zero else min(step + 1, warmup)) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1e-9, total_steps - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def go_to_step(schedule: torch.optim.lr_scheduler.LambdaLR, step: int) -> None:
    """Sets the learning rates to those of a step, where training goes on with it."""
    schedule.last_epoch = step
    rates = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
    for group, rate, factor in rates:
        group["lr"] = rate * factor(step)
