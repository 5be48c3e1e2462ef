"""The keys that add time, item id or action to HLLM's input (section 4.5), checked against the data set."""

from recbole_hllm.data.clock import check_clock_times
from recbole_hllm.errors import ConfigError
from recbole_hllm.nn.input_features import CALENDAR_SIZES, InputFeatures

TIMES_OF = ("item", "next")


def build_input_features(config, dataset, width: int) -> InputFeatures:
    """The features that are switched on, as vectors of the given width.

    Raises:
        ConfigError: a value that cannot be used.
        DataError: time is wanted and the data set's timestamps are no points in time.
    """
    check_feature_keys(config)
    if config["time_num"]:
        check_clock_times(dataset.timestamps, dataset.dataset_name, "time_num", "hour or month", "set time_num: 0")
    return InputFeatures(
        width,
        n_items=dataset.item_num if config["input_item_id"] else 0,
        n_actions=0 if dataset.actions is None else int(dataset.actions.max()) + 1,
        time_num=config["time_num"],
        time_width=config["time_width"],
    )


def check_feature_keys(config) -> None:
    """Raises ConfigError for values that no data set could be read with."""
    if config["time_of"] not in TIMES_OF:
        raise ConfigError(f"time_of: {config['time_of']!r} is not one of {', '.join(TIMES_OF)}")
    if config["time_num"] > len(CALENDAR_SIZES):
        raise ConfigError(f"time_num: {config['time_num']} parts; there are {len(CALENDAR_SIZES)}, year to second")
