"""From tables of interactions to sorted, numbered arrays: filters in RecBole's order, ids as RecBole numbers them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from recbole.utils import FeatureType

from recbole_hllm.data.files import filters
from recbole_hllm.data.files.blocks import narrow, number_texts, renumbered
from recbole_hllm.data.files.formats import as_objects
from recbole_hllm.data.files.order import by_group_and_time, in_order
from recbole_hllm.data.files.table import Table
from recbole_hllm.errors import DataError

# Which file of several a row came from; no column of a file can have this name.
PHASE = ":phase"
# Of each user how many rows there are: beside the columns, so that a start from the cache reads none to know it.
LENGTHS = ":lengths"


@dataclass(frozen=True)
class Choice:
    """Which interactions are kept.

    Attributes:
        name: of the data set.
        user, item, time: names of the columns.
        once: value of ``rm_dup_inter``.
        values: column -> what ``val_interval`` allows, of columns of the interactions.
        of_rows: (key, column, texts): only interactions with one of these users or items.
        of_users, of_items: how many interactions a user and an item must have; None for any number.
    """

    name: str
    user: str
    item: str
    time: str
    once: str | None
    values: dict[str, Any]
    of_rows: Sequence[tuple[str, str, pa.Array]]
    of_users: Sequence[filters.Interval] | None
    of_items: Sequence[filters.Interval] | None


def filtered(table: Table, choice: Choice) -> list[tuple[int, str]]:
    """Leaves out what the filters leave out, and says how many interactions each does.

    Returns:
        (level, text) of what it logged.

    Raises:
        DataError: nothing is left.
    """
    said: list[tuple[int, str]] = []
    for field in (choice.user, choice.item):
        _drop_missing(table, field, choice.name, said)
    steps: list[tuple[str, Callable[[], None]]] = []
    if choice.once is not None:
        keep = choice.once
        steps.append(
            ("rm_dup_inter", lambda: filters.keep_once(table, choice.user, choice.item, choice.time, keep))
        )
    steps.append(("val_interval", lambda: _keep_values(table, choice)))
    steps.append(("filter_inter_by_user_or_item", lambda: _keep_rows(table, choice, "filter_inter_by_user_or_item")))
    counts = (choice.user, choice.item, choice.of_users, choice.of_items)
    steps.append(
        ("user_inter_num_interval, item_inter_num_interval", lambda: filters.keep_counts(table, *counts))
    )
    before = len(table)
    for keys, leave_out in steps:
        rows = len(table)
        if rows:
            leave_out()
        if gone := rows - len(table):
            _say(said, logging.INFO, f"{keys}: {gone} of {rows} interactions are left out")
    if len(table) == 0:
        raise DataError(
            f"data set '{choice.name}': no interaction is left after filtering; look at rm_dup_inter, "
            "val_interval, user_inter_num_interval and item_inter_num_interval"
        )
    if len(table) < before or choice.once is not None or said:
        for name in table.tokens:
            table.columns[name], table.tokens[name] = renumbered(table.columns[name], table.tokens[name])
    return said


def _say(said: list[tuple[int, str]], level: int, text: str) -> None:
    logging.getLogger().log(level, text)
    said.append((level, text))


def _drop_missing(table: Table, field: str, name: str, said: list[tuple[int, str]]) -> None:
    missing = table.columns[field] == 0
    if not missing.any():
        return
    first = table.place(int(np.argmax(missing)))
    text = f"{name}.inter: {int(missing.sum())} rows without {field} are left out, the first in {first}"
    _say(said, logging.WARNING, text)
    places, place = np.flatnonzero(~missing), table.place
    table.take(~missing)
    table.place = lambda row: place(int(places[row]))


def _keep_values(table: Table, choice: Choice) -> None:
    for field, allowed in choice.values.items():
        filters.keep_values(table, field, allowed)
    _keep_rows(table, choice, "val_interval")


def _keep_rows(table: Table, choice: Choice, wanted: str) -> None:
    for key, field, texts in choice.of_rows:
        if key == wanted:
            filters.keep_tokens(table, field, texts)


def number_sequences(table: Table, kinds: dict[str, FeatureType]) -> None:
    """Words of the columns of sequences become numbers, too."""
    for name, kind in kinds.items():
        if kind == FeatureType.TOKEN_SEQ:
            cells = table.columns[name]
            words = [word for cell in cells for word in cell.tolist()]
            numbers, table.tokens[name] = number_texts(words)
            ends = np.cumsum([len(cell) for cell in cells])
            table.columns[name] = as_objects(np.split(numbers.astype(np.int64), ends[:-1]))


def sort(table: Table, user: str, time: str) -> None:
    """Rows by user, file and time; those of one time stay in the order of the file."""
    users, n_users, phase = table.columns[user], len(table.tokens[user]), table.columns.get(PHASE)
    groups, n_groups = users, n_users
    if phase is not None:
        n_phases = int(phase.max()) + 1
        groups, n_groups = users.astype(np.int64) * n_phases + phase, n_users * n_phases
    order, times = by_group_and_time(groups, n_groups, table.columns[time])
    if order is not None:
        table.columns[time] = np.empty(0)  # room for what follows
        for name in table.columns:
            table.columns[name] = times if name == time else in_order(table.columns[name], order)
    table.columns[time] = narrow(times)


def fill_numbers(table: Table, kinds: dict[str, FeatureType]) -> None:
    """RecBole's filling of missing numbers, by their mean."""
    for name, kind in kinds.items():
        values = table.columns[name]
        if kind == FeatureType.FLOAT and values.dtype.kind == "f" and (missing := np.isnan(values)).any():
            table.columns[name] = np.where(missing, pd.Series(values).mean(), values)
