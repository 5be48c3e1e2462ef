"""Metrics by name: which there are, of rankings or of labels, and whether they fit a run."""

import logging
from collections.abc import Sequence

from recbole.evaluator.register import metric_types, metrics_dict, smaller_metrics
from recbole.utils import EvaluatorType

from recbole_hllm.errors import ConfigError, did_you_mean

# Means of the AUC inside each user; RecBole knows none of them for labelled rows.
USER_METRICS = ("gauc", "uauc", "wuauc")
VALUE_METRICS = ("auc", "logloss", *USER_METRICS, "mae", "rmse")
# Metrics of this package about what is recommended at all, and the metric of RecBole that needs the same.
OF_THE_CATALOGUE = {"coverage": "itemcoverage", "entropy": "shannonentropy", "gini": "giniindex"}
_OF_RANKINGS = {name for name, kind in metric_types.items() if kind == EvaluatorType.RANKING}
# Metrics of rankings that look at no list.
_WITHOUT_A_LIST = {"gauc"}
OF_POPULARITY = frozenset(("averagepopularity", "tailpercentage"))
# Metrics of the listed items themselves, whether they are targets or not.
_OF_LISTED_ITEMS = {*OF_THE_CATALOGUE, *OF_THE_CATALOGUE.values(), *OF_POPULARITY}


def stock_names(metrics: Sequence[str]) -> list[str]:
    """Names in small letters, in place of each of ``OF_THE_CATALOGUE`` RecBole's."""
    return [OF_THE_CATALOGUE.get(name.lower(), name.lower()) for name in metrics]


def known_to_recbole(metrics: Sequence[str], labelled: bool) -> list[str]:
    """Checks names of metrics, and gives RecBole names of its own that need and mean as much.

    Args:
        metrics: names in any case.
        labelled: of labelled rows; False: of rankings.

    Raises:
        ConfigError: a name that there is not, or a metric of labels for rankings.
    """
    names = [str(metric).lower() for metric in metrics]
    if labelled:  # checked before; RecBole's GAUC is one of rankings
        return [name for name in names if name not in USER_METRICS] or ["auc"]
    there = _OF_RANKINGS | OF_THE_CATALOGUE.keys()
    other = [metric for metric, name in zip(metrics, names, strict=True) if name not in there]
    for metric in other:
        if str(metric).lower() not in VALUE_METRICS:
            known = [metrics_dict[name].__name__ for name in _OF_RANKINGS]
            known += [name.capitalize() for name in OF_THE_CATALOGUE]
            raise ConfigError(f"metrics: there is no metric named '{metric}'{did_you_mean(str(metric), known)}")
    if other:
        both = "; both can not be used at the same time" if len(other) < len(names) else ""
        raise ConfigError(f"metrics: {other} need labels; rankings have Recall, MRR, NDCG, Hit, ...{both}")
    return stock_names(names)


def is_smaller_better(metric: str) -> bool:
    """Whether the smaller of two values of a metric is the better one.

    Args:
        metric: its name in any case, with or without ``@k``.
    """
    return stock_names([metric.partition("@")[0]])[0] in smaller_metrics


def check_valid_metric(valid_metric: str, metrics: Sequence[str], topk: Sequence[int], labelled: bool) -> None:
    """Raises ConfigError where no epoch can be chosen by ``valid_metric``, since ``metrics`` do not give it."""
    names = [metric.lower() for metric in metrics]
    single = [name for name in names if labelled or name in _WITHOUT_A_LIST]
    computed = [name if name in single else f"{name}@{k}" for name in names for k in topk]
    if valid_metric.lower() not in computed:
        raise ConfigError(
            f"valid_metric: '{valid_metric}' is not computed; "
            f"metrics and topk give {', '.join(dict.fromkeys(computed))}"
        )


def longest_list(config) -> int:
    """Length of the longest list that the metrics of a ranking look at; 0 where they look at none."""
    names = {metric.lower() for metric in config["metrics"]}
    return max(config["topk"]) if names - _WITHOUT_A_LIST - {*VALUE_METRICS} else 0


def of_listed_items(config) -> list[str]:
    """Those of the metrics that are about the listed items themselves, such as ItemCoverage."""
    return [metric for metric in config["metrics"] if metric.lower() in _OF_LISTED_ITEMS]


def check_topk(config, n_items: int) -> None:
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


def check_lists(config, fewest: int, why: str) -> None:
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
