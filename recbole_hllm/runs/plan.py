"""What a training will cost, before it starts: parameters, tokens, FLOPs, memory, and time from a few timed steps."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import init_seed

from recbole_hllm.config.config import Config
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.loader import check_sizes, data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.memory import free_memory
from recbole_hllm.model.base.contract import ReadsRuns, Weights
from recbole_hllm.runs.effect import tell_of_run
from recbole_hllm.runs.prerequisites import to_be_made
from recbole_hllm.training.engines.memory import Numbers, by_strategy, held, held_in_evaluation
from recbole_hllm.training.failures import missing_memory_named
from recbole_hllm.training.peak_memory import peak_memory
from recbole_hllm.training.trainer import Trainer
from recbole_hllm.training.work import Work, WorkCounter
from recbole_hllm.units import format_seconds, gigabytes

# Batches looked at for the number of tokens, and steps timed after one that warms up.
SAMPLED_BATCHES, TIMED_STEPS = 32, 3


def plan(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: dict[str, Any] | None = None,
    arguments: dict[str, Any] | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """Estimates what ``run`` with these arguments would cost; nothing is trained, and nothing written but what a
    cache keeps: tokenised texts, and vectors of a frozen Item LLM.

    Args:
        model, dataset, config_file_list, config_dict, arguments: as for ``run``.
        processes: of which the memory is estimated by strategy, where there are several.

    Returns:
        first, key and model of each run that would be trained before; parameters (of each part: total and trained),
        batches, item_tokens, tokens_again (computed again to save memory), positions and flops per epoch, memory_bytes
        by purpose, an estimate; of several processes held (what each holds, by strategy) and evaluation (bytes of all
        weights, which each has in an evaluation); and, from a few steps, seconds per step, per epoch and of all
        epochs, or of max_steps if that is less (limit says which), and peak_memory_bytes of this process, both None
        where the model does not fit into the memory there is.

    Raises:
        UserError: as ``run``.
    """
    config = Config(model, dataset, config_file_list, config_dict, arguments)
    tell_of_run(config)
    settings = RunKeys.of(config)
    init_seed(settings.seed, settings.reproducibility)
    train, *evaluated = data_preparation(config, create_dataset(config))
    check_sizes(config, train, *evaluated)
    skeleton = config.spec.outline(config, train._dataset)
    work = _work(config, skeleton, train)
    activations = work.pop("activations")
    result: dict[str, Any] = {
        "model": settings.model,
        "dataset": settings.dataset,
        "first": to_be_made(config),
        "parameters": _parameters(skeleton),
        "batches": len(train),
        **work,
        "memory_bytes": _memory(settings, skeleton, activations),
        **_of_several(settings, skeleton, processes),
    }
    fits = sum(result["memory_bytes"].values()) < free_memory(settings.device)
    result["seconds"] = _timed(config, train) if fits else None
    result["peak_memory_bytes"] = peak_memory(settings.device) if fits else None
    return result


def plan_text(result: dict[str, Any]) -> str:
    """What ``plan`` returns, as lines to read."""
    lines = [f"{result['model']} on {result['dataset']}, estimated before any training:"]
    if result["first"]:
        made = ", then ".join(f"{model} ({key})" for key, model in result["first"])
        lines.append(f"  trained first, once      {made}: not counted below; --plan --model=NAME estimates each")
    for part, (total, trained) in result["parameters"].items():
        lines.append(f"  parameters {part:<14} {total:>15,}, trained {trained:,}")
    lines.append(f"  an epoch has {result['batches']:,} batches, {result['positions']:,.0f} positions read")
    if result["item_tokens"]:
        again = result["tokens_again"] / result["item_tokens"]
        lines.append(f"  item tokens an epoch     {result['item_tokens']:>12,.0f}, each item of a batch at most once")
        if again:
            lines.append(f"  computed again           {again:>12.0%} of them, to save memory")
    lines.append(f"  FLOPs an epoch           {result['flops']:>12.3g}")
    memory, seconds = result["memory_bytes"], result["seconds"]
    parts = ", ".join(f"{name.replace('_', ' ')} {gigabytes(size)}" for name, size in memory.items())
    lines.append(f"  memory by rule of thumb  {gigabytes(sum(memory.values())):>12} ({parts})")
    if result["peak_memory_bytes"] is not None:
        lines.append(f"  memory, peak of steps    {gigabytes(result['peak_memory_bytes']):>12} (the whole process)")
    lines += _held_lines(result)
    if seconds is None:
        lines.append("  time: not measured, the model does not fit into the memory of this machine")
    else:
        lines.append(
            f"  time on this machine     {seconds['step']:>11.2f}s a step, {format_seconds(seconds['epoch'])} an "
            f"epoch, {format_seconds(seconds['all'])} for all {seconds['limit']}, evaluation not counted"
        )
    return "\n".join(lines)


def _parameters(model: Any) -> dict[str, tuple[int, int]]:
    """Part -> all and trained parameters, the whole last."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        part, number = name.split(".")[0], parameter.numel()
        total, trained = counts.get(part, (0, 0))
        counts[part] = (total + number, trained + number * parameter.requires_grad)
    return {**counts, "all": (sum(total for total, _ in counts.values()), sum(own for _, own in counts.values()))}


@missing_memory_named()
def _work(config: Config, model: Any, train: Any) -> dict[str, float]:
    """Tokens, positions and FLOPs of an epoch, from some of its batches."""
    counter, epoch = WorkCounter(config, model, train._dataset.rows.labelled, recomputation=True), Work()
    batches = list(islice(train, SAMPLED_BATCHES))
    for share in _stages(model, model.pretraining_epochs(), RunKeys.of(config).epochs):
        for rows in batches:
            epoch.add(counter.of(rows), share * len(train) / len(batches))
    names = ("item_tokens", "tokens_again", "positions", "flops", "activations")
    return {name: getattr(epoch, name) for name in names}


def _memory(settings: RunKeys, model: Any, activations: float) -> dict[str, float]:
    """Of one process. Activations are those of the Item LLM, the largest part of a language model recommender's."""
    one = held(Numbers.of(model), settings.weights == "bf16")
    return {
        "weights": one.weights,
        "gradients_and_optimizer": one.gradients + one.optimizer,
        "activations": activations,
    }


def _of_several(settings: RunKeys, model: Any, processes: int) -> dict[str, Any]:
    """What each of several processes holds, by strategy."""
    if processes == 1:
        return {"processes": 1}
    numbers, bf16 = Numbers.of(model), settings.weights == "bf16"
    strategies = by_strategy(numbers, bf16, processes)
    return {"processes": processes, "held": strategies, "evaluation": held_in_evaluation(numbers, bf16)}


def _held_lines(result: dict[str, Any]) -> list[str]:
    """A line for each strategy, where there are several processes."""
    if "held" not in result:
        return []
    lines = [f"  memory of each of {result['processes']} processes, activations not counted:"]
    for name, one in result["held"].items():
        beside = f", and {gigabytes(one.in_cpu)} of the CPU's" if one.in_cpu else ""
        lines.append(f"    {name:<22} {gigabytes(one.on_device):>12}{beside}")
    everything = gigabytes(result["evaluation"])
    lines.append(f"    in an evaluation each has all weights, {everything}; stage 3 beside its parts")
    return lines


@missing_memory_named()
def _timed(config: Config, train: Any) -> dict[str, Any]:
    """Seconds of a step, by running some; the model is thrown away."""
    settings = RunKeys.of(config)
    init_seed(settings.seed, settings.reproducibility)
    # Prerequisite runs are not waited for: other weights take the same time.
    weights = Weights.STAND_IN if issubclass(config.spec.model, ReadsRuns) else Weights.FRESH
    model = config.spec.build(config, train._dataset, weights).to(settings.device)
    return _time_steps(Trainer(config, model, Path("unused")), train)


def _stages(model: Any, pretraining: int, epochs: int) -> Iterator[float]:
    """The share in all epochs of each stage that there is, pre-training and training, the model being set to it."""
    if not pretraining or not epochs:
        yield 1.0
        return
    for first, share in ((0, pretraining), (pretraining, epochs)):
        model.begin_epoch(first)
        yield share / (pretraining + epochs)


def _time_steps(trainer: Trainer, train: Any) -> dict[str, Any]:
    """Of a training of two stages the seconds of a step are the mean over all epochs."""
    trainer.model.train()
    before = trainer.stopping.pretraining
    stages = _stages(trainer.model, before, trainer.epochs - before)
    step = sum(share * _seconds_of_step(trainer, train) for share in stages)
    epochs, max_steps, epoch = trainer.epochs, trainer.stopping.max_steps, step * len(train)
    every, limit = epoch * epochs, f"{epochs} epochs"
    if max_steps is not None and trainer.stopping.all_steps(len(train)) == max_steps:
        every, limit = min(every, step * max_steps * trainer.accumulation), f"{max_steps} steps (max_steps)"
    return {"step": step, "epoch": epoch, "epochs": epochs, "all": every, "limit": limit}


def _seconds_of_step(trainer: Trainer, train: Any) -> float:
    seconds = []
    for rows in islice(train, 1 + TIMED_STEPS):
        start = time.perf_counter()
        trainer.train_batch(rows)
        trainer.engine.step()
        if trainer.gpu_available:
            torch.cuda.synchronize(trainer.device)
        seconds.append(time.perf_counter() - start)
    return float(np.mean(seconds[1:] or seconds))
