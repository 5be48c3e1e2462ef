"""A model's scalars, such as a temperature, beside DeepSpeed, which cannot hold them and would round them."""

from collections import defaultdict

import torch
from torch import Tensor, nn

from recbole_hllm.data.batches import Batch
from recbole_hllm.training.engines.engine import LossFunction, LossOf


class WithScalars(nn.Module):
    """A loss whose scalars are vectors of one number: what DeepSpeed wraps.

    The model has float32 buffers of the same names in their place, so checkpoints show no difference. Losses read
    these, whatever precision the vectors have, and may change them in place, as the clamp of a temperature does. Before
    a step they are written where the optimizer steps, and after it they are read there.

    Args:
        loss_of: its model's scalars are taken out of it.

    Attributes:
        vectors: one of each trained scalar, the Parameter that was the model's.
        exact: the scalars.
    """

    def __init__(self, loss_of: LossOf) -> None:
        super().__init__()
        self.loss_of = loss_of
        places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = defaultdict(list)
        for module in loss_of.model.modules():
            for name, weight in module.named_parameters(recurse=False):
                if weight.dim() == 0:
                    places[weight].append((module, name))
        trained = [weight for weight in places if weight.requires_grad]
        values = {weight: weight.detach().clone() for weight in places}
        for weight, found in places.items():
            for module, name in found:
                delattr(module, name)
                module.register_buffer(name, values[weight])
        for weight in trained:
            weight.data = weight.data.reshape(1)
        self.vectors = nn.ParameterList(trained)
        self.exact = [values[weight] for weight in trained]
        self._places = [places[weight] for weight in trained]

    def forward(self, rows: Batch, loss_function: LossFunction | None = None) -> Tensor:
        """The loss, with gradients of the vectors; until ``settle`` the model has scalars that have a graph."""
        self.settle()
        for vector, value, found in zip(self.vectors, self.exact, self._places, strict=True):
            self._put(found, value + (vector - vector.detach()).to(value.dtype).reshape(()))
        loss: Tensor = self.loss_of(rows, loss_function)
        return loss

    @torch.no_grad()
    def settle(self) -> None:
        """The model's buffers are what the last loss has made of them."""
        for value, found in zip(self.exact, self._places, strict=True):
            module, name = found[0]
            value.copy_(module.get_buffer(name))
            self._put(found, value)

    @staticmethod
    def _put(places: list[tuple[nn.Module, str]], value: Tensor) -> None:
        for module, name in places:
            setattr(module, name, value)
