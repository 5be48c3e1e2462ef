"""The keys that add time, item id or action to HLLM's input (section 4.5), checked against the data set."""

from typing import Any

from recbole_hllm.config.keys.hllm import InputFeatureKeys
from recbole_hllm.data.clock import check_clock_times
from recbole_hllm.nn.input_features import InputFeatures


def build_input_features(settings: InputFeatureKeys, dataset: Any, width: int) -> InputFeatures:
    """The features that are switched on, as vectors of the given width.

    Args:
        dataset: the training part of a SequenceDataset.

    Raises:
        DataError: time is wanted and the data set's timestamps are no points in time.
    """
    if settings.time_num:
        check_clock_times(dataset.timestamps, dataset.dataset_name, "time_num", "hour or month", "set time_num: 0")
    return InputFeatures(
        width,
        n_items=dataset.item_num if settings.input_item_id else 0,
        n_actions=0 if dataset.actions is None else int(dataset.actions.max()) + 1,
        time_num=settings.time_num,
        time_width=settings.time_width,
    )
