"""What the training loop asks of an engine, and the engine of one process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.data.batches import Batch
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.training.engines.masters import Masters

# How names of files begin that have one process's part of the optimizer's state.
PART = "deepspeed-stage-"
LossFunction = Callable[[Interaction], Any]


class LossOf(nn.Module):
    """A model whose ``forward`` is its loss, in the precision of the training: what DDP and DeepSpeed wrap.

    Args:
        model: a recommender.
        device: it is on.
        dtype: of autocast; None: none.
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.model, self.device, self.dtype = model, device, dtype

    def forward(self, rows: Interaction, loss_function: LossFunction | None = None) -> Tensor:
        """Scalar loss of training rows; ``loss_function`` in place of the model's."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            losses = (loss_function or self.model.calculate_loss)(rows)
        loss: Any = sum(losses) if isinstance(losses, tuple) else losses
        return loss


class Engine:
    """One process alone. The loop calls, for each batch, ``loss``, ``backward`` and ``means``, and then ``step``.

    Args:
        model: a recommender, on its device.
        optimizer: of its parameters.
        settings: the keys of the run.

    Attributes:
        several: whether it can be one of several processes.
        optimizer: what a schedule sets the learning rate of.
        scaler: of fp16.
        masters: of weights in bf16.
    """

    several: ClassVar[bool] = False

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, settings: RunKeys) -> None:
        self.model, self.optimizer, self.settings = model, optimizer, settings
        # Of several batches of a step: how many numbers a row the last loss is the mean of, and the sum of weights.
        self.density: float | Tensor | None = None
        self._weights: float | Tensor = 0.0
        self.clip_grad_norm = settings.clip_grad_norm
        scaled = settings.precision == "fp16" and model.type != ModelType.TRADITIONAL
        self.scaler = torch.amp.GradScaler(settings.device.type, enabled=scaled)
        self.masters = self.make_masters()
        self.wrapped: Any = self.wrap(LossOf(model, settings.device, AUTOCAST_DTYPES[settings.precision]))

    @classmethod
    def check_keys(cls, settings: RunKeys) -> None:
        """Raises ConfigError for keys that this engine cannot do what they say."""
        if settings.weights == "bf16" and settings.precision != "bf16":
            raise ConfigError(
                f"weights: bf16 is for precision: bf16, and not {settings.precision}: layers would meet numbers of two "
                "kinds"
            )

    def make_masters(self) -> Masters | None:
        """What is stepped in place of weights in bf16; None where there are none."""
        return Masters(self.model, self.optimizer) if self.settings.weights == "bf16" else None

    def wrap(self, loss_of: LossOf) -> Any:
        """What is called with rows to get their loss."""
        return loss_of

    # ---- a batch ----

    def share_out(self, loader: Any) -> None:
        """Each process gets its part of every batch of a loader of training rows."""

    def loss(self, rows: Batch, loss_function: LossFunction | None = None, last: bool = True) -> Tensor:
        """Scalar loss of this process's rows.

        Args:
            rows: on the device.
            loss_function: in place of the model's ``calculate_loss``.
            last: ``step`` comes after this batch.
        """
        loss: Tensor = self.wrapped(rows, loss_function)
        if self.settings.gradient_accumulation_steps > 1 and self.model.loss_parts is not None:
            self.density = self.model.loss_parts / max(len(rows), 1)
        return loss

    def backward(self, loss: Tensor, share: float = 1.0) -> None:
        """Adds the gradients of a ``loss``, the one that ``loss`` gave last.

        Args:
            share: of its rows among those of the step. Where the loss is the mean of several numbers a row, the batch
                counts for as many as it has.
        """
        weight = share if self.density is None else share * self.density
        self._weights = self._weights + weight
        self.add_gradients(loss * weight)

    def add_gradients(self, loss: Tensor) -> None:
        """Adds the gradients of a loss that is weighed already."""
        self.scaler.scale(loss).backward()
        if self.masters and not self.several:  # a sum of many in bf16 loses what is small; DDP averages the sum itself
            self.masters.take_gradients()

    def means(self, loss: Tensor, terms: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
        """Loss and terms of the last batch as one process alone has them; neither is waited for."""
        return loss, terms

    def step(self) -> bool:
        """One step of the optimizer with the gradients there are; whether it was made: fp16 skips some."""
        if self.masters:
            self.masters.take_gradients()
        stepped = self.masters.stepped if self.masters else list(self.model.parameters())
        self._divide(stepped)
        if self.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(stepped, **self.clip_grad_norm)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.masters:
            self.masters.write_back()
        self.optimizer.zero_grad(set_to_none=True)
        return self.scaler.get_scale() >= before

    def _divide(self, stepped: Sequence[Tensor]) -> None:
        """Divides gradients by the weights of their batches, which are 1 together where a row is one number."""
        weights, self._weights = self._weights, 0.0
        if self.density is None:
            return
        least = torch.as_tensor(weights, dtype=torch.float32).clamp(min=torch.finfo(torch.float32).tiny)
        for weight in stepped:
            if weight.grad is not None:
                weight.grad /= least.to(weight.device)

    # ---- between steps ----

    @contextmanager
    def whole(self, changed: bool = False) -> Iterator[None]:
        """Inside, the model has all its weights, in full, for an evaluation or a checkpoint; all processes go in
        together.

        Args:
            changed: weights are loaded inside.
        """
        if not self.masters:
            yield
            return
        self.masters.show()
        try:
            yield
        finally:
            self.masters.hide()

    @property
    def kept(self) -> Any:
        """What a checkpoint keeps as the optimizer, by its ``state_dict`` and ``load_state_dict``."""
        return self.optimizer

    def save(self, folder: Path) -> None:
        """Writes what only this process knows of the training into a checkpoint's folder, which all see."""

    def load(self, folder: Path) -> None:
        """Reads what ``save`` wrote, once weights are loaded.

        Raises:
            ModelError: another engine did, or this one in other processes; or it is damaged.
        """
        if parts := sorted(path.name for path in folder.glob(f"{PART}*")):
            raise ModelError(
                f"{folder} has parts of the optimizer's state, {', '.join(parts)}: go on with the strategy, the stage "
                "and the number of processes that the training began with"
            )
