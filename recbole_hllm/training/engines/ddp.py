"""torch's DistributedDataParallel: each process has all weights, and gradients are averaged while they are computed."""

import warnings
from typing import Any

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from recbole_hllm.data.batches import Batch
from recbole_hllm.processes import current
from recbole_hllm.training.engines.engine import LossFunction, LossOf
from recbole_hllm.training.engines.shared import SharedEngine


class DDPEngine(SharedEngine):
    """All weights in each process."""

    def wrap(self, loss_of: LossOf) -> Any:
        """DDP, which looks for weights that a batch does not use: many models have some, such as the last layer of a
        language model's pooling, and a step takes far longer than to look."""
        if current().world_size == 1:
            return loss_of
        with warnings.catch_warnings():
            # Its new name, which older versions of torch do not know, would also copy buffers once.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                loss_of, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
            )

    def loss(self, rows: Batch, loss_function: LossFunction | None = None, last: bool = True) -> Tensor:
        """Scalar loss of this process's rows; gradients are averaged with those of the last batch of a step."""
        self.wrapped.require_backward_grad_sync = last
        return super().loss(rows, loss_function, last)
