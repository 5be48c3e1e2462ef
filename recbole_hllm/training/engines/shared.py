"""What engines of several processes have in common: their parts of a batch, weighed as in one process."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_hllm.data.batches import Batch
from recbole_hllm.processes import current
from recbole_hllm.training.engines.engine import Engine, LossFunction
from recbole_hllm.training.random_states import draw_apart


class SharedEngine(Engine):
    """One of several processes, whose gradients are averaged.

    A model's loss is a mean over rows, or over what ``loss_parts`` counts. Processes have different numbers of these,
    so each loss is weighed by the share of its process before it is averaged.
    """

    several: ClassVar[bool] = True

    def share_out(self, loader: Any) -> None:
        """Each process gets its part of every batch of a loader of training rows."""
        processes = current()
        if processes.world_size > 1:
            loader.shard(processes.rank, processes.world_size)
        if not processes.is_first:  # dropout of other rows is drawn apart
            draw_apart(self.settings.seed, processes.rank)

    def loss(self, rows: Batch, loss_function: LossFunction | None = None, last: bool = True) -> Tensor:
        """Scalar loss of this process's rows."""
        loss = super().loss(rows, loss_function, last)
        parts = self.model.loss_parts
        parts = 0 if rows.stands_in else len(rows) if parts is None else parts
        own = torch.as_tensor(parts, dtype=torch.float64, device=loss.device)
        of_all = _sum(own.clone()).clamp(min=1)
        self._share = own / of_all
        if self.density is not None:
            self.density = (of_all / _sum(torch.full_like(own, 0 if rows.stands_in else len(rows)))).to(loss.dtype)
        return loss

    def backward(self, loss: Tensor, share: float = 1.0) -> None:
        """Adds ``share`` of the gradients of a loss; their mean over processes are those of the whole batch."""
        super().backward(loss * (self._share * current().world_size).to(loss.dtype), share)

    def means(self, loss: Tensor, terms: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
        """Loss and terms of the whole batch."""
        numbers = [torch.as_tensor(n, dtype=torch.float64, device=loss.device) for n in (loss, *terms.values())]
        mean, *others = _sum(torch.stack([number.reshape(()) for number in numbers]) * self._share)
        return mean.to(loss.dtype), dict(zip(terms, others, strict=True))


def _sum(numbers: Tensor) -> Tensor:
    """Of all processes, in place."""
    if current().world_size > 1:
        dist.all_reduce(numbers)
    return numbers
