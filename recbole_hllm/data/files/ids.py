"""Ids of a data set: those of the interactions stand, and what other tables hold is numbered after them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from recbole.utils import FeatureType

from recbole_hllm.data.files.blocks import number_texts
from recbole_hllm.data.files.table import merged
from recbole_hllm.data.files.tokens import TokenIds, Tokens
from recbole_hllm.errors import ConfigError, DataError

_MOST_ACTIONS = 1000


def match_side_features(dataset: Any, tokens: dict[str, Tokens]) -> None:
    """Users and items are those of the interactions: rows of others would become ids and candidates.

    Args:
        dataset: an AtomicDataset whose tables are read.
        tokens: texts of the columns of its interactions.

    Raises:
        DataError: an item has no row, with ``strict_data``.
    """
    items = tokens[dataset.iid_field]
    if dataset.histories_given:
        items = merged(items, tokens[dataset.item_list_field])[0]
    _report_missing_rows(dataset, items)
    known = {dataset.uid_field: tokens[dataset.uid_field], dataset.iid_field: items}
    for name, field, feat in dataset.side_features():
        ours = known[field].ids_of(pa.array(feat[field], pa.large_string(), from_pandas=True)) > 0
        if gone := int((~ours).sum()):
            file = f"{dataset.dataset_name}.{name.removesuffix('_feat')}"
            dataset.logger.info(f"{file}: {gone} of {len(feat)} rows are left out, of which there is no interaction")
        setattr(dataset, name, feat[ours].reset_index(drop=True))


def _report_missing_rows(dataset: Any, items: Tokens) -> None:
    """Counts items without a row in .item; texts are counted where they are read."""
    strict, rows = dataset.config["strict_data"], None
    if dataset.item_feat is not None:
        rows = pa.array(dataset.item_feat[dataset.iid_field], pa.large_string(), from_pandas=True)
    elif strict:
        rows = dataset.ids_in_file("item", dataset.iid_field)
    if rows is None:
        return
    missing = items.texts[1:].filter(pc.invert(pc.is_in(items.texts[1:], value_set=rows)))
    if len(missing):
        file = dataset.table_file("item")
        message = f"{file}: {len(missing)} of {len(items) - 1} items have no row, such as {missing[0]}"
        if strict:
            raise DataError(f"{message}. Add them, or set strict_data: False to continue without their features")
        dataset.logger.warning(f"{message}; their features are empty")


def number_alike(dataset: Any, remap_list: Any, tokens: dict[str, Tokens]) -> None:
    """RecBole's ids of columns that share them, of which the first is one of the interactions: its numbers stand, and
    the words of the others that it lacks follow in their order.

    Args:
        dataset: an AtomicDataset; its columns, ``field2id_token`` and ``field2token_id`` are changed.
        remap_list: table, column and type of each, as RecBole has them.
        tokens: texts of the columns of its interactions.
    """
    known: Tokens | None = None
    for feat, field, kind in remap_list:
        words = feat[field].to_numpy()
        ours = feat is dataset.inter_feat
        flat = _end_to_end(words) if kind == FeatureType.TOKEN_SEQ else words
        numbers, texts = (flat, tokens[field]) if ours else number_texts(flat)
        if known is None and ours:
            known = texts
            continue
        known, places = merged(known, texts) if known is not None else (texts, np.arange(len(texts)))
        numbers = places[numbers].astype(np.int64)
        feat[field] = numbers if kind == FeatureType.TOKEN else _cells(numbers, words)
    lookup = TokenIds(known) if known is not None else None
    for _, field, _ in remap_list:
        if field not in dataset.field2id_token:
            dataset.field2id_token[field], dataset.field2token_id[field] = known, lookup


def _end_to_end(cells: np.ndarray) -> np.ndarray:
    return np.concatenate(cells) if len(cells) else np.empty(0, np.int64)


def _cells(words: np.ndarray, like: np.ndarray) -> list[np.ndarray]:
    """Words end to end as cells, each as long as the cell in its place."""
    return np.split(words, np.cumsum([len(cell) for cell in like])[:-1])


def number_actions(dataset: Any, field: str | None) -> Any:
    """(T,) int64, 1, 2, ... for each value of the column ``action_field`` in rising order; None without.

    Raises:
        ConfigError: it is no column of tokens or numbers, or has too many values.
    """
    if field is None:
        return None
    kind = dataset.field2type[field]
    if dataset.histories_given:
        raise ConfigError(f"action_field: '{field}': files of histories have no actions; leave the key out")
    if kind not in (FeatureType.TOKEN, FeatureType.FLOAT):
        raise ConfigError(f"action_field: '{field}' is a {kind.value} column, not token or float")
    values = dataset.inter_feat[field].to_numpy()
    if kind == FeatureType.TOKEN:  # ids are counted, not sorted
        there = np.bincount(values) > 0
        number, numbers = int(there.sum()), np.cumsum(there)[values]
    else:
        known, numbers = np.unique(values, return_inverse=True)
        number, numbers = len(known), numbers.astype(np.int64) + 1
    if number > _MOST_ACTIONS:
        raise ConfigError(
            f"action_field: '{field}' has {number} values, and at most {_MOST_ACTIONS} can be kinds of action"
        )
    return numbers
