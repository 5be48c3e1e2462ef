"""DeepSpeed's ZeRO: processes share the optimizer's state, gradients and weights, in GPUs or in the CPU's memory."""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.batches import Batch
from recbole_hllm.errors import WRONG_VALUE, ConfigError, ModelError, words_of
from recbole_hllm.nn.ragged import read_alike
from recbole_hllm.processes import current
from recbole_hllm.training.checkpoint import read_tensors, write_tensors
from recbole_hllm.training.engines.deepspeed_settings import deepspeed_settings
from recbole_hllm.training.engines.engine import PART, LossFunction, LossOf
from recbole_hllm.training.engines.scalars import WithScalars
from recbole_hllm.training.engines.shared import SharedEngine


class DeepSpeedEngine(SharedEngine):
    """ZeRO of stage 0 to 3.

    The optimizer is the run's own, of whose state DeepSpeed gives each process a part. Stage 3 gathers the weights of
    a layer when it is called, in all processes at once: so all call their layers equally often, see ``read_alike``.
    """

    @classmethod
    def check_keys(cls, settings: RunKeys) -> None:
        """Raises ConfigError where DeepSpeed is missing, or for keys that it cannot do what they say."""
        super().check_keys(settings)
        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError("strategy: deepspeed needs the extra: pip install 'recbole-hllm[deepspeed]'")
        if settings.precision == "fp16":
            raise ConfigError("precision: fp16 is not for strategy: deepspeed; take bf16")
        norm = (settings.clip_grad_norm or {}).get("norm_type", 2)
        if float(norm) != 2:
            raise ConfigError(f"clip_grad_norm: norm_type {norm} is not for strategy: deepspeed, which knows 2")
        stage = deepspeed_settings(settings, current().world_size)["zero_optimization"]["stage"]
        if stage == 0 and settings.weights == "bf16":
            raise ConfigError("weights: bf16 is not for stage: 0 of strategy: deepspeed; take stage 1 or strategy: ddp")
        if stage == 3 and (settings.train_neg_sample_args or {}).get("dynamic"):
            raise ConfigError("train_neg_sample_args: dynamic: with stage: 3 the model cannot choose negatives; take 2")

    def make_masters(self) -> None:
        """DeepSpeed makes them itself, in parts."""

    def wrap(self, loss_of: LossOf) -> Any:
        """DeepSpeed's engine.

        Raises:
            ConfigError: this stage is not for this model, or DeepSpeed refuses its settings.
        """
        config = deepspeed_settings(self.settings, current().world_size)
        self.stage = config["zero_optimization"]["stage"]
        if self.stage == 3:
            _check_owned(self.model)
        deepspeed = _deepspeed(self.settings.device)
        _check_accepted(config)
        _without_empty(self.model, self.optimizer)
        self.scalars = WithScalars(loss_of)
        buffers = [(buffer, buffer.data) for buffer in self.model.buffers()]
        wrapped, *_ = deepspeed.initialize(model=self.scalars, optimizer=self.optimizer, config=config)
        for buffer, exact in buffers:  # with weights in bf16 DeepSpeed rounds the angles of positions, too
            buffer.data = exact
        return wrapped

    def loss(self, rows: Batch, loss_function: LossFunction | None = None, last: bool = True) -> Tensor:
        """Scalar loss of this process's rows."""
        self.wrapped.set_gradient_accumulation_boundary(last)
        with read_alike(self.stage == 3):
            loss = super().loss(rows, loss_function, last)
        self.density = None  # DeepSpeed steps with the sum of gradients as it is
        return loss

    def add_gradients(self, loss: Tensor) -> None:
        """DeepSpeed's backward pass; of a batch that no step follows, what it calls a step only counts."""
        with read_alike(self.stage == 3):
            self.wrapped.backward(loss, scale_wrt_gas=False)
        if not self.wrapped.is_gradient_accumulation_boundary():
            self.wrapped.step()

    def step(self) -> bool:
        """One step of the optimizer, scalars among what it steps."""
        self.scalars.settle()
        for vector, value in zip(self.scalars.vectors, self.scalars.exact, strict=True):
            self._write_master(vector, value)
        self.wrapped.step()
        for vector, value in zip(self.scalars.vectors, self.scalars.exact, strict=True):
            value.copy_(self._master(vector).reshape(()))
        return bool(self.wrapped.was_step_applied())

    def _master(self, vector: nn.Parameter) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(vector) if self.stage else vector.data

    def _write_master(self, vector: nn.Parameter, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        if self.stage == 3:  # each process's part is one number, and that of the first counts
            safe_set_local_fp32_param(vector, value.reshape(1))
        elif self.stage:
            safe_set_full_fp32_param(vector, value.reshape(1))
        else:
            vector.data.copy_(value)

    @contextmanager
    def whole(self, changed: bool = False) -> Iterator[None]:
        """Inside, each process has all weights, and layers gather nothing; ``changed`` ones are those of the first."""
        self.scalars.settle()
        if self.stage < 3:
            with self._in_full(changed):
                yield
            return
        import deepspeed

        offload = self.wrapped.optimizer.parameter_offload
        parameters = [weight for weight in self.model.parameters() if hasattr(weight, "ds_id")]
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if changed else None):
            for weight in parameters:
                weight.ds_active_sub_modules.clear()
            for hook in (*offload.forward_hooks, *offload.backward_hooks):
                hook.remove()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                with self._in_full(changed):
                    yield
            finally:
                offload._register_deepspeed_module(offload.module)

    @contextmanager
    def _in_full(self, changed: bool) -> Iterator[None]:
        """Inside, weights that are kept in bf16 are the float32 ones that are stepped."""
        if self.settings.weights != "bf16":
            yield
            return
        from deepspeed.utils import safe_get_full_fp32_param

        rounded = [(weight, weight.data) for weight in self.model.parameters()]
        for weight, short in rounded:
            full = safe_get_full_fp32_param(weight) if weight.requires_grad else None
            weight.data = short.float() if full is None else full.reshape(short.shape)
        try:
            yield
        finally:
            for weight, short in rounded:
                if changed:
                    short.copy_(weight.data)
                weight.data = short

    # ---- checkpoints ----

    @property
    def kept(self) -> Any:
        """Groups alone: the state is in the parts."""
        return _Groups(self.optimizer) if self.stage else self.optimizer

    def save(self, folder: Path) -> None:
        """Writes this process's part of the optimizer: safetensors, not DeepSpeed's own files, which are pickles."""
        if not self.stage:
            return
        tensors = {}
        for number, weights in enumerate(self._masters()):
            tensors[f"{number}.weights"] = weights
            for name, value in self.optimizer.state[weights].items():
                tensors[f"{number}.{name}"] = torch.as_tensor(value)
        write_tensors(folder / self._file(), tensors)

    def load(self, folder: Path) -> None:
        """Reads what ``save`` wrote.

        Raises:
            ModelError: it is of another stage or number of processes, or damaged.
        """
        if not self.stage:
            return super().load(folder)
        if not (folder / self._file()).exists():
            found = ", ".join(sorted(path.name for path in folder.glob(f"{PART}*"))) or "no part of DeepSpeed's"
            raise ModelError(
                f"{folder} has {found}, and not {self._file()}: go on with the strategy, the stage and the number "
                "of processes that the training began with"
            )
        tensors = read_tensors(folder / self._file())
        for number, weights in enumerate(self._masters()):
            for name in (name for name in tensors if name.startswith(f"{number}.")):
                value = tensors[name].to(weights.device)
                if name.endswith(".weights"):
                    weights.data.copy_(value)
                else:
                    self.optimizer.state[weights][name.partition(".")[2]] = value

    def _masters(self) -> list[Tensor]:
        """The weights that this process steps, in float32, group by group."""
        of_stage = "fp32_partitioned_groups_flat" if self.stage == 3 else "single_partition_of_fp32_groups"
        masters: list[Tensor] = getattr(self.wrapped.optimizer, of_stage)
        return masters

    def _file(self) -> str:
        processes = current()
        return f"{PART}{self.stage}-{processes.rank + 1}-of-{processes.world_size}.safetensors"


def _deepspeed(device: torch.device) -> Any:
    """DeepSpeed, for this device, in the group of processes there is; one process alone is a group too."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    # DeepSpeed calls some, to no harm.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    import deepspeed

    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cpu":  # an extension that takes minutes and a compiler to build, and that training never calls
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(backend)
    return deepspeed


def _check_accepted(config: dict[str, Any]) -> None:
    """Raises ConfigError where DeepSpeed refuses a value or a name inside a section of ``deepspeed_config``."""
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    try:
        DeepSpeedConfig(config)
    except (DeepSpeedConfigError, *WRONG_VALUE) as error:
        raise ConfigError(f"deepspeed_config: DeepSpeed refuses it: {words_of(error)}") from error


def _check_owned(model: nn.Module) -> None:
    """Raises ConfigError where a layer reads weights that are another's, which would not be gathered for it."""
    for name, module in model.named_modules():
        if any(isinstance(value, nn.Parameter) for value in vars(module).values()):
            raise ConfigError(
                f"stage: 3 is not for {type(model).__name__}, whose {name} reads weights of another layer; take 2"
            )


def _without_empty(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """DeepSpeed cannot hold weights without a number either, such as an empty text's words, which nothing trains."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.numel() == 0:
                delattr(module, name)
                module.register_buffer(name, weight.data)
    for group in optimizer.param_groups:
        group["params"] = [weight for weight in group["params"] if weight.numel()]


class _Groups:
    """Of an optimizer whose state is in parts: its groups of weights, for the file that all processes share."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        groups = [{**group, "params": []} for group in self.optimizer.param_groups]
        return {"state": {}, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """A schedule sets what changes in a group."""
