"""Which device a process computes on."""

import re

import torch

from recbole_hllm.errors import ConfigError


def device_of(use_gpu: bool, gpu_id: str | None, rank: int = 0, processes: int = 1) -> torch.device:
    """The GPU of this process where there is one; of several processes on a node each has its own.

    Args:
        use_gpu: value of the key.
        gpu_id: value of the key: a number, or several with commas, of which several processes take one each where it
            names as many; -1 or nothing is the CPU.
        rank, processes: which of how many processes of this node this is.

    Raises:
        ConfigError: it is no number, or there are fewer GPUs.
    """
    ids = re.findall(r"[^\s,()\[\]]+", gpu_id or "")
    if not all(re.fullmatch(r"-?\d+", number) for number in ids):
        raise ConfigError(f"gpu_id: '{gpu_id}' is not a number, or several separated by commas")
    if not (use_gpu and ids and int(ids[0]) >= 0 and torch.cuda.is_available()):  # -1 is CUDA's word for none
        return torch.device("cpu")
    visible, chosen = torch.cuda.device_count(), int(ids[rank]) if len(ids) >= processes else rank
    if chosen >= visible:
        several = f" for {processes} processes on this node" if processes > 1 else ""
        raise ConfigError(f"gpu_id: {chosen} of {visible} visible GPUs, counted from 0{several}")
    return torch.device("cuda", chosen)
