"""The table of metrics: RecBole's, ours and those that others add; every check of a metric reads it.

A metric is a class as RecBole's are, and its attributes say all of it: ``metric_type``, whether it is of labelled rows
(``VALUE``) or of rankings; ``metric_need``, what it reads; ``smaller``, whether the smaller value is the better one.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from recbole.evaluator.base_metric import AbstractMetric
from recbole.evaluator.register import metrics_dict
from recbole.utils import EvaluatorType

from recbole_hllm.doors import Door, is_place, load_place, place_of
from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.evaluation.columns import MASKED, plain_name

METRICS = Door(
    "metric",
    {
        "Coverage": "recbole_hllm.evaluation.diversity:Coverage",
        "Gini": "recbole_hllm.evaluation.diversity:Gini",
        "Entropy": "recbole_hllm.evaluation.diversity:Entropy",
        "GAUC": "recbole_hllm.evaluation.value_metrics:GAUC",  # of labelled rows; RecBole's reads rankings
        "UAUC": "recbole_hllm.evaluation.value_metrics:UAUC",
        "WUAUC": "recbole_hllm.evaluation.value_metrics:WUAUC",
    },
    group="recbole_hllm.metrics",
)
# What a metric of rankings may read, and one of labelled rows.
NEEDS = {
    EvaluatorType.RANKING: ("rec.topk", "rec.items", "rec.meanrank", "data.num_items", "data.count_items"),
    EvaluatorType.VALUE: ("rec.score", "data.label", "data.users"),
}
_LISTS = {"rec.topk", "rec.items"}
_added: dict[str, type[AbstractMetric]] = {}


def register_metric(metric: type[AbstractMetric]) -> type[AbstractMetric]:
    """Adds a metric, under the name of its class, for this process; also a decorator.

    Raises:
        ConfigError: it is no metric as RecBole's are, or its name is taken.
    """
    _check(metric)
    name, there = metric.__name__.lower(), _added.get(metric.__name__.lower(), metric)
    if name in {**_stock(False), **_stock(True)} or place_of(there) != place_of(metric):
        raise ConfigError(f"metrics: there is a metric named '{metric.__name__}' already; give yours another name")
    _added[name] = metric
    return metric


def registered_metrics() -> list[type[AbstractMetric]]:
    """Classes that were given by place or registered."""
    return [metric for metric in _added.values() if metric.__name__ not in METRICS]


def known_metrics(metrics: Any) -> Any:
    """A value of ``metrics``, one or a list, with the name of each that is given as ``package.module:Class``.

    Raises:
        ConfigError: there is no such module or class, it is no metric, or its name is taken.
    """
    if isinstance(metrics, list):
        return [known_metrics(metric) for metric in metrics]
    return register_metric(load_place(metrics, f"metrics: {metrics}")).__name__ if is_place(metrics) else metrics


def find_metric(name: str, labelled: bool) -> type[AbstractMetric] | None:
    """The class of a metric; None where there is none of that name for such rows.

    Args:
        name: in any case.
        labelled: of labelled rows; False: of rankings.

    Raises:
        ConfigError: an installed package adds it, and it cannot be imported or is no metric.
    """
    name = name.lower()
    for installed, point in METRICS.installed().items():
        if installed.lower() == name:
            metric = METRICS.load(installed)
            if getattr(metric, "__name__", None) != installed:
                raise ConfigError(f"metrics: {point.value} must have the name of its entry point, '{installed}'")
            register_metric(metric)
    metric = _stock(labelled).get(name, _added.get(name))
    return metric if metric is not None and _is_labelled(metric) == labelled else None


def metric_names(labelled: bool) -> list[str]:
    """Names of the metrics of labelled rows, or of rankings; those of installed packages may be either."""
    known = {**_stock(labelled), **{name: cls for name, cls in _added.items() if _is_labelled(cls) == labelled}}
    return [*(metric.__name__ for metric in known.values()), *METRICS.installed()]


@lru_cache
def _stock(labelled: bool) -> dict[str, type[AbstractMetric]]:
    """RecBole's and ours, by their names in small letters."""
    classes = (*metrics_dict.values(), *(METRICS.load(name) for name in METRICS.rows))
    return {cls.__name__.lower(): cls for cls in classes if _is_labelled(cls) == labelled}


def _is_labelled(metric: type[AbstractMetric]) -> bool:
    return metric.metric_type == EvaluatorType.VALUE


def _check(metric: type) -> None:
    name = getattr(metric, "__name__", metric)
    if not (isinstance(metric, type) and issubclass(metric, AbstractMetric)):
        bases = "TopkMetric, LossMetric or AbstractMetric of recbole.evaluator.base_metric"
        raise ConfigError(f"metrics: {name} is not a metric: derive it from {bases}")
    kind = getattr(metric, "metric_type", None)
    needs = NEEDS.get(kind, ())
    if not needs or not set(getattr(metric, "metric_need", ["nothing"])) <= set(needs):
        raise ConfigError(
            f"metrics: {name}: metric_type must be EvaluatorType.RANKING or .VALUE, and metric_need a list of what it "
            f"reads, out of {', '.join(needs or NEEDS[EvaluatorType.RANKING])}"
        )


def needed_by(metrics: Sequence[str], labelled: bool) -> set[str]:
    """Everything that the metrics of labelled rows, or of rankings, read among these."""
    found = (find_metric(name, labelled) for name in metrics)
    return {need for metric in found if metric is not None for need in metric.metric_need}


# ---- checks ----


def check_metrics(metrics: Sequence[str], labelled: bool, model: str) -> None:
    """Raises ConfigError for a name that there is not, or a metric of labels for rankings or the other way round.

    Args:
        metrics: names in any case.
        labelled: of labelled rows; False: of rankings.
        model: that they are for.
    """
    other = [metric for metric in metrics if find_metric(str(metric), labelled) is None]
    for metric in other:
        if find_metric(str(metric), not labelled) is None:
            hint = did_you_mean(str(metric), metric_names(labelled))
            hint = hint or "; a class of your own is given as package.module:Class"
            raise ConfigError(f"metrics: there is no metric named '{metric}'{hint}")
    if other and labelled:
        raise ConfigError(f"metrics: {other}: labelled rows of {model} have {', '.join(metric_names(True))} only")
    if other:
        both = "; both can not be used at the same time" if len(other) < len(metrics) else ""
        raise ConfigError(f"metrics: {other} need labels; rankings have Recall, MRR, NDCG, Hit, ...{both}")


def is_smaller_better(metric: str) -> bool:
    """Whether the smaller of two values of a metric is the better one.

    Args:
        metric: its name in any case, with or without ``@k``, of either column.
    """
    name = plain_name(metric).partition("@")[0]
    found = find_metric(name, False) or find_metric(name, True)
    return bool(found and found.smaller)


def check_valid_metric(
    valid_metric: str, metrics: Sequence[str], topk: Sequence[int], labelled: bool, both: bool = False
) -> None:
    """Raises ConfigError where no epoch can be chosen by ``valid_metric``, since ``metrics`` do not give it.

    Args:
        both: each metric is there with the history taken out, too.
    """
    computed = []
    for name in (metric.lower() for metric in metrics):
        computed += [f"{name}@{k}" for k in topk] if needed_by([name], labelled) & _LISTS else [name]
    computed += [name + MASKED for name in computed] if both else []
    if valid_metric.lower() not in computed:
        raise ConfigError(
            f"valid_metric: '{valid_metric}' is not computed; "
            f"metrics and topk give {', '.join(dict.fromkeys(computed))}"
        )


def of_popularity(metrics: Sequence[str]) -> bool:
    """Whether any of these metrics of rankings reads how often items occur in training."""
    return "data.count_items" in needed_by(metrics, False)


def of_users(metric: str) -> bool:
    """Whether a metric of labelled rows is a mean over users."""
    return "data.users" in needed_by([metric], True)


def longest_list(config: Any) -> int:
    """Length of the longest list that the metrics of a ranking look at; 0 where they look at none."""
    return max(config["topk"]) if needed_by(config["metrics"], False) & _LISTS else 0


def of_listed_items(config: Any) -> list[str]:
    """Those of the metrics that are about the listed items themselves, such as ItemCoverage."""
    return [name for name in config["metrics"] if "rec.items" in needed_by([name], False)]


def check_topk(config: Any, n_items: int) -> None:
    """Raises ConfigError where a list of ``topk`` would have more places than there are items.

    Args:
        config: ``metrics`` and ``topk``.
        n_items: size of the catalogue, padding not counted.
    """
    longest = longest_list(config)
    if longest > n_items:
        raise ConfigError(
            f"topk: {longest} is more than the {n_items} items of the catalogue; choose values of at most {n_items}"
        )


def check_lists(config: Any, fewest: int, why: str) -> None:
    """Whether lists are full. One that is not has items at its end that are no candidates.

    These are no targets either: metrics of targets are what they should be, if all targets are in such a list.

    Args:
        config: ``metrics`` and ``topk``.
        fewest: candidates of the row that has fewest.
        why: there are no more.

    Raises:
        ConfigError: there are metrics of the listed items, and fewer candidates than places.
    """
    longest, metrics = longest_list(config), of_listed_items(config)
    if longest <= fewest:
        return
    if metrics:
        raise ConfigError(
            f"topk: {longest}: {', '.join(metrics)} would count items that are no candidates: a row has only {fewest}, "
            f"{why}; choose values of at most {fewest}, or leave these metrics out"
        )
    logging.getLogger().warning(
        f"topk: {longest} is more than the {fewest} candidates of a row, {why}: every target of such a row is in "
        "a list of that length"
    )
