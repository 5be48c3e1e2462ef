"""Numbers of the last batches, kept on the device and read together: a GPU that is asked for one is waited for."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recbole_hllm.processes import current

# Read after so many batches, or after so many seconds where batches are slow: a progress bar should not stand still.
BATCHES_KEPT, SECONDS_KEPT = 50, 5.0
# Of several processes, which all read at once: their clocks differ, and one that stops would leave the others waiting.
BATCHES_KEPT_TOGETHER = 10


@dataclass(frozen=True)
class BatchPlace:
    """Where the numbers of a batch belong.

    Attributes:
        epoch: from 0 on.
        index: of the batch in its epoch, from 0 on.
        step: optimizer steps before it.
        learning_rate: of its step.
        time: seconds since 1970 when it was computed.
    """

    epoch: int
    index: int
    step: int
    learning_rate: float
    time: float = field(default_factory=time.time)

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.index}"


class StepNumbers:
    """Keeps the loss of each batch and the terms beside it, and hands them on in order once they are read.

    The first batch is read at once. As a context it reads what is left at its end, also where an error ends it: a loss
    that is not a number explains most errors that follow.

    Args:
        record: called with each batch, its loss and its terms; may raise.
    """

    def __init__(self, record: Callable[[BatchPlace, float, dict[str, float]], None]) -> None:
        self._record = record
        self._kept: list[tuple[BatchPlace, dict[str, float | None], Tensor]] = []
        self._read_at = -math.inf

    def __enter__(self) -> "StepNumbers":
        return self

    def __exit__(self, *_: object) -> None:
        self.read()

    def keep(self, batch: BatchPlace, loss: Tensor, terms: Mapping[str, float | Tensor]) -> None:
        """Takes the numbers of a batch; those on the device of the loss are copied there, not read."""
        late = {name: term for name, term in terms.items() if isinstance(term, Tensor) and term.device == loss.device}
        known = {name: None if name in late else float(term) for name, term in terms.items()}
        # Among floats, numbers that are none would lose digits.
        numbers = [number if number.is_floating_point() else number.double() for number in (loss, *late.values())]
        row = torch.stack([number.detach().reshape(()) for number in numbers])
        self._kept.append((batch, known, row))
        if self._is_due():
            self.read()

    def _is_due(self) -> bool:
        if current().world_size > 1:
            return self._read_at == -math.inf or len(self._kept) >= BATCHES_KEPT_TOGETHER
        return len(self._kept) >= BATCHES_KEPT or time.monotonic() - self._read_at >= SECONDS_KEPT

    def read(self) -> None:
        """Waits for the numbers that are kept and hands them on."""
        kept, self._kept = self._kept, []
        values = iter(torch.cat([row for *_, row in kept]).tolist() if kept else ())
        self._read_at = time.monotonic()
        for batch, known, _ in kept:
            loss = next(values)
            self._record(batch, loss, {name: next(values) if term is None else term for name, term in known.items()})
