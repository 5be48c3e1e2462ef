"""How one step is computed: by one process, or by several with torch's DDP or DeepSpeed's ZeRO."""

from typing import Any

import torch

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.doors import Door
from recbole_hllm.errors import ConfigError
from recbole_hllm.processes import current
from recbole_hllm.training.engines.engine import Engine

ENGINES = Door(
    "strategy",
    {
        "single": "recbole_hllm.training.engines.engine:Engine",
        "ddp": "recbole_hllm.training.engines.ddp:DDPEngine",
        "deepspeed": "recbole_hllm.training.engines.deepspeed:DeepSpeedEngine",
    },
    group="recbole_hllm.engines",
)


def engine_class(settings: RunKeys) -> type[Engine]:
    """The engine of the key ``strategy``.

    Raises:
        ConfigError: there is none of this name, it is not installed, or it is one process and there are several.
    """
    several = current().world_size > 1
    name = settings.strategy or ("ddp" if several else "single")
    if name not in ENGINES:
        raise ConfigError(f"strategy: there is no strategy named '{name}'; there are {', '.join(ENGINES)}")
    found: type[Engine] = ENGINES.load(name)
    if several and not found.several:
        raise ConfigError(
            f"strategy: {name} is one process, and {current().world_size} were started; take ddp or deepspeed, or "
            "start the program without torchrun"
        )
    for key in () if name == "deepspeed" else ("stage", "offload", "deepspeed_config"):
        if not settings.is_default(key):
            raise ConfigError(f"{key}: {getattr(settings, key)} is of strategy: deepspeed, and this is {name}")
    found.check_keys(settings)
    return found


def build_engine(model: Any, optimizer: torch.optim.Optimizer, settings: RunKeys, counts_only: bool) -> Engine:
    """The engine of a training.

    Args:
        model: on its device.
        optimizer: of its parameters.
        counts_only: the model has no gradients: each process counts all rows.

    Raises:
        ConfigError: see ``engine_class``.
    """
    found = engine_class(settings)
    return (Engine if counts_only else found)(model, optimizer, settings)
