"""The two columns of ``mask_history: both``: metrics with the history left in, and with it taken out.

A metric with the history taken out of the list has ``-masked`` after its name: ``ndcg@10-masked``. Without it the
history is left in.
"""

MASKED = "-masked"


def plain_name(metric: str) -> str:
    """A metric's name without the mark of its column."""
    return metric.removesuffix(MASKED)


def is_masked(metric: str) -> bool:
    """Whether a metric is the one with the history taken out, of a run that has both."""
    return metric.endswith(MASKED)


def other_column(metric: str) -> str:
    """The same metric with the history taken out, or left in."""
    return plain_name(metric) if is_masked(metric) else metric + MASKED
