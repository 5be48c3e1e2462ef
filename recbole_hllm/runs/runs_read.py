"""What a run cost together with the finished runs that it reads."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_hllm.config.config import Config
from recbole_hllm.model.base.contract import ReadsRuns
from recbole_hllm.storage.files import read_json

_TO_BEST = ("seconds_to_best", "item_tokens_to_best", "flops_to_best")
_OF_ALL = ("training_seconds", "item_tokens", "flops", "disk_bytes")


def runs_read(config: Config) -> list[Path]:
    """Folders of the finished runs that a model reads: the parts of a Blend, the teacher of a student."""
    model = config.spec.model
    if not issubclass(model, ReadsRuns):
        return []
    values = (config[key] for key in model.run_keys(config))
    named = (name for value in values for name in (value if isinstance(value, list) else [value]) if name)
    folders = (Path(str(name)).expanduser().resolve() for name in named)
    return [folder for folder in folders if (folder / "config.yaml").is_file()]  # others are language models


def with_runs_read(costs: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Costs of a run with those of the runs that it reads, and that these read in turn, each once.

    Args:
        costs: costs.json of the run alone.
        config: the run's Config.

    Returns:
        ``costs``, in which ``seconds_to_best``, ``item_tokens_to_best`` and ``flops_to_best`` are sums over all these
        runs; None where one is not known, but that runs without item tokens read no texts. Where the runs are needed to
        recommend, ``training_seconds``, ``item_tokens``, ``flops`` and ``disk_bytes`` are such sums, too, and the run
        has converged if they have. ``runs_read`` has the costs of each run alone, by folder, and ``alone`` those of
        this one; where no runs are read there is neither.
    """
    read = dict[str, Any]()
    ended = {"converged": costs["converged"], "stop_reason": costs["stop_reason"]}
    for folder in runs_read(config):
        file, theirs = folder / "costs.json", dict[str, Any](converged=False, stop_reason="not known")
        if file.is_file():
            theirs = read_json(file)
        read |= {str(folder): _own(theirs.get("alone", theirs)), **theirs.get("runs_read", {})}
        if not theirs["converged"]:
            ended = {"converged": False, "stop_reason": f"of a part: {theirs['stop_reason']}"}
    if not read:
        return dict(costs)
    alone = _own(costs)
    sums = {name: _sum(name, [alone, *read.values()]) for name in alone}
    whole = {**sums, **ended} if config.spec.model.RUNS_STAY_NEEDED else {name: sums[name] for name in _TO_BEST}
    return {**costs, **whole, "alone": alone, "runs_read": read}


def _own(costs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: costs.get(name) for name in (*_TO_BEST, *_OF_ALL)}


def _sum(name: str, costs: Iterable[Mapping[str, Any]]) -> Any:
    values = [cost[name] for cost in costs]
    if name.startswith("item_tokens"):
        values = [value for value in values if value is not None] or [None]
    return None if None in values else sum(values)
