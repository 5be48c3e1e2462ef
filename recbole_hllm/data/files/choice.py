"""Which interactions the filters of a config keep, with what they say of users and items."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from recbole.utils import FeatureSource, FeatureType

from recbole_hllm.data.files import filters
from recbole_hllm.data.files.formats import place_of
from recbole_hllm.data.files.interactions import Choice
from recbole_hllm.errors import ConfigError

_OF_INTERACTIONS = (FeatureSource.INTERACTION, FeatureSource.USER_ID, FeatureSource.ITEM_ID)


def choose(dataset: Any, columns: Any) -> Choice:
    """The filters, once all tables but the interactions are read; rows of users and items that they leave out go.

    Args:
        dataset: an AtomicDataset that is being read.
        columns: those of the interactions.

    Raises:
        ConfigError: a filter that cannot be.
    """
    config = dataset.config
    values = dict(config["val_interval"] or {})
    for field, allowed in values.items():
        _check(dataset, field, allowed)
    own = {field for field in values if field in columns and dataset.field2source[field] in _OF_INTERACTIONS}
    return Choice(
        name=dataset.dataset_name,
        user=dataset.uid_field,
        item=dataset.iid_field,
        time=dataset.time_field,
        once=config["rm_dup_inter"],
        values={field: allowed for field, allowed in values.items() if field in own},
        of_rows=[] if dataset.benchmark_filename_list is not None else [*_filter_rows(dataset, values)],
        of_users=filters.parse_intervals(config["user_inter_num_interval"]),
        of_items=filters.parse_intervals(config["item_inter_num_interval"]),
    )


def _check(dataset: Any, field: Any, allowed: Any) -> None:
    kind = dataset.field2type.get(field)
    if kind is None:
        raise ConfigError(f"val_interval: there is no column '{field}'; columns: {', '.join(dataset.field2type)}")
    if kind in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
        raise ConfigError(f"val_interval: '{field}' is a {kind.value} column; only token and float columns filter")
    if kind == FeatureType.TOKEN and not (isinstance(allowed, list) and all(isinstance(v, str) for v in allowed)):
        raise ConfigError(f"val_interval: '{field}' is a token column and needs a list of texts, not {allowed}")


def _filter_rows(dataset: Any, values: Any) -> Iterator[tuple[str, str, pa.Array]]:
    """Leaves out rows of users and items: those without an id, and by ``val_interval``.

    Yields:
        The key, column and ids of interactions to keep: with a user or item that is filtered out, or has no row, its
        interactions go too.
    """
    for name, field, feat in dataset.side_features():
        missing = feat[field].isna()
        if missing.any():
            table = name.removesuffix("_feat")
            first = place_of(dataset.table_file(table), feat.index[missing][0])
            dataset.logger.warning(
                f"{dataset.dataset_name}.{table}: {int(missing.sum())} rows without {field} are left out, the first in "
                f"{first}"
            )
            feat.drop(index=feat.index[missing], inplace=True)
    for field, allowed in values.items():
        for feat in [feat for feat in dataset.field2feats(field) if feat is not None]:
            if dataset.field2type[field] == FeatureType.TOKEN:
                inside = feat[field].isin(allowed).to_numpy()
            else:
                inside = filters.within(feat[field].to_numpy(), filters.parse_intervals(allowed) or [])
            feat.drop(index=feat.index[~inside], inplace=True)
    for _, field, feat in dataset.side_features():
        if any(name in feat and name != field for name in values):
            yield "val_interval", field, pa.array(feat[field], pa.large_string())
    if dataset.config["filter_inter_by_user_or_item"]:
        for suffix, field in (("user", dataset.uid_field), ("item", dataset.iid_field)):
            ids = dataset.ids_in_file(suffix, field)
            if ids is not None:
                yield "filter_inter_by_user_or_item", field, ids
