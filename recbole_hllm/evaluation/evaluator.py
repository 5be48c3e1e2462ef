"""MetricEvaluator: RecBole's, with the metrics of our table."""

from typing import Any

from recbole.evaluator import Evaluator

from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation.metrics import find_metric


class MetricEvaluator(Evaluator):
    """Values of the metrics of a config.

    Args:
        config: the run's Config, or a dict of its keys.
        labelled: the metrics are of labelled rows; False: of rankings.
    """

    def __init__(self, config: Any, labelled: bool) -> None:
        self.config, self.metrics = config, [metric.lower() for metric in config["metrics"]]
        self.metric_class = {}
        for name in self.metrics:
            kind = find_metric(name, labelled)
            assert kind is not None, "check_metrics has asked for it before"
            self.metric_class[name] = kind(config)

    def evaluate(self, dataobject: Any) -> dict[str, float]:
        """What RecBole's returns: name -> value, in the order of ``metrics``.

        Raises:
            ConfigError: a metric gives its values another name than its own.
        """
        values = super().evaluate(dataobject)
        for name in self.metrics:
            if not any(key.partition("@")[0] == name for key in values):
                raise ConfigError(
                    f"metrics: {type(self.metric_class[name]).__name__} must name its values '{name}', or '{name}@k', "
                    f"as RecBole's do; there are {', '.join(values)}"
                )
        return values
