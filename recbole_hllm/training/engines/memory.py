"""What each process holds of a model that is trained, by strategy: weights, gradients and the optimizer's state."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from recbole_hllm.training.engines.masters import halved_weights

# Bytes of a number in float32, of one in bf16, and of Adam's two moments.
FULL, HALF, MOMENTS = 4, 2, 8


@dataclass(frozen=True)
class Numbers:
    """How many numbers a model has."""

    total: int
    trained: int
    halved: int
    """Of ``total``, those that ``weights: bf16`` keeps in bf16 without DeepSpeed."""
    halved_trained: int
    """Of these, trained ones."""

    @classmethod
    def of(cls, model: nn.Module) -> "Numbers":
        """Those of a model on any device, ``meta`` too."""
        weights, halved = list(model.parameters()), halved_weights(model)
        parts = (weights, _trained(weights), halved, _trained(halved))
        return cls(*(sum(weight.numel() for weight in part) for part in parts))


@dataclass(frozen=True)
class Held:
    """Bytes that a process holds between a backward pass and a step; activations come on top."""

    weights: float
    gradients: float
    optimizer: float
    in_cpu: float = 0.0
    """In the memory of the CPU in place of the GPU's."""

    @property
    def on_device(self) -> float:
        """Of the device that computes."""
        return self.weights + self.gradients + self.optimizer


def held(numbers: Numbers, bf16: bool) -> Held:
    """By one process alone; ``bf16`` is ``weights: bf16``, whose float32 copy counts as the optimizer's."""
    halved, copied = (numbers.halved, numbers.halved_trained) if bf16 else (0, 0)
    return Held(
        weights=FULL * (numbers.total - halved) + HALF * halved,
        gradients=FULL * numbers.trained,
        optimizer=MOMENTS * numbers.trained + FULL * copied,
    )


def held_by_ddp(numbers: Numbers, bf16: bool) -> Held:
    """By each of several processes under ``ddp``, which keeps room for gradients of the weights' own type: with
    ``weights: bf16`` beside the float32 ones that are stepped with."""
    one = held(numbers, bf16)
    return replace(one, gradients=one.gradients + (HALF * numbers.halved_trained if bf16 else 0))


def held_by_zero(numbers: Numbers, bf16: bool, stage: int, processes: int, offload: bool = False) -> Held:
    """By each of several processes under ``strategy: deepspeed`` with stage 1, 2 or 3 (arXiv 1910.02054, section 5),
    which steps a float32 copy of its part. Its buckets for sending come on top, up to some GB of a large model."""
    each = HALF if bf16 else FULL
    weights, gradients = float(each * numbers.total), float(each * numbers.trained)
    optimizer, in_cpu = (FULL + MOMENTS) * numbers.trained / processes, 0.0
    if stage >= 2:
        gradients /= processes
    if stage == 3:
        weights /= processes
    if offload:
        in_cpu, optimizer = in_cpu + optimizer + FULL * numbers.trained / processes, 0.0
        if stage >= 2:
            gradients = 0.0
        if stage == 3:
            in_cpu, weights = in_cpu + weights, 0.0
    return Held(weights, gradients, optimizer, in_cpu)


def held_in_evaluation(numbers: Numbers, bf16: bool) -> float:
    """Bytes of all weights, which each process has in an evaluation or a checkpoint: of ZeRO with ``weights: bf16``
    both kinds."""
    return float((FULL + HALF * bf16) * numbers.total)


def by_strategy(numbers: Numbers, bf16: bool, processes: int) -> dict[str, Held]:
    """What each of several processes holds under every strategy."""
    zero = {f"stage {stage}": held_by_zero(numbers, bf16, stage, processes) for stage in (1, 2, 3)}
    offload = {
        f"stage {stage}, offload": held_by_zero(numbers, bf16, stage, processes, offload=True) for stage in (2, 3)
    }
    return {"ddp": held_by_ddp(numbers, bf16), **zero, **offload}


def _trained(weights: Iterable[Tensor]) -> list[Tensor]:
    return [weight for weight in weights if weight.requires_grad]
