"""What a run cost together with the finished runs that it reads."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_hllm.config.config import Config
from recbole_hllm.model.base.contract import ReadsRuns
from recbole_hllm.storage.files import read_json

_TO_BEST = ("seconds_to_best", "item_tokens_to_best", "flops_to_best")


def runs_read(config: Config) -> list[Path]:
    """Folders of the finished runs that a model reads: the parts of a Blend, the teacher of a student."""
    model = config.spec.model
    if not issubclass(model, ReadsRuns):
        return []
    values = (config[key] for key in model.run_keys(config))
    named = (name for value in values for name in (value if isinstance(value, list) else [value]) if name)
    folders = (Path(str(name)).expanduser().absolute() for name in named)
    return [folder for folder in folders if (folder / "costs.json").is_file()]


def with_runs_read(costs: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Costs of a run with those of the runs that it reads, and that these read in turn, each once.

    Args:
        costs: costs.json of the run alone.
        config: the run's Config.

    Returns:
        ``costs``, their ``seconds_to_best``, ``item_tokens_to_best`` and ``flops_to_best`` being sums over all these
        runs; None where one is not known. Where the runs are needed to recommend, ``disk_bytes`` is such a sum, too,
        and the run has converged if they have. ``runs_read`` has the costs of each run alone, by folder, and ``alone``
        those of this one; where no runs are read there is neither.
    """
    read = dict[str, Any]()
    ended = {"converged": costs["converged"], "stop_reason": costs["stop_reason"]}
    for folder in runs_read(config):
        theirs = read_json(folder / "costs.json")
        read |= {str(folder): _own(theirs.get("alone", theirs)), **theirs.get("runs_read", {})}
        if not theirs["converged"]:
            ended = {"converged": False, "stop_reason": f"of a part: {theirs['stop_reason']}"}
    if not read:
        return dict(costs)
    alone = _own(costs)
    sums = {name: _sum(name, [alone, *read.values()]) for name in alone}
    whole = {**sums, **ended}
    if not config.spec.model.RUNS_STAY_NEEDED:
        whole = {name: sums[name] for name in _TO_BEST}
    return {**costs, **whole, "alone": alone, "runs_read": read}


def _own(costs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: costs.get(name) for name in (*_TO_BEST, "disk_bytes")}


def _sum(name: str, costs: Iterable[Mapping[str, Any]]) -> Any:
    values = [cost[name] for cost in costs]
    if name == "item_tokens_to_best":  # those that read no texts have none
        values = [value for value in values if value is not None] or [None]
    return None if None in values else sum(values)
