"""What the columns of a table must be: names, types, ids that are there once, times that are numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureSource, FeatureType

from recbole_hllm.data.clock import units_of
from recbole_hllm.data.files.formats import place_of
from recbole_hllm.data.files.table import Table
from recbole_hllm.errors import ConfigError, DataError


def check_columns(dataset: Any, path: Path, source: Any, header: Any, names: Any) -> None:
    """Whether a table has the columns that are needed, of the types they must have.

    Args:
        dataset: an AtomicDataset that is being read.
        source: which of its tables it is.
        header: column -> type.
        names: columns to be loaded.

    Raises:
        ConfigError, DataError: it has not, or they are not to be loaded.
    """
    config, user, item, time = dataset.config, dataset.uid_field, dataset.iid_field, dataset.time_field
    required = {user: FeatureType.TOKEN, item: FeatureType.TOKEN}
    needed = {FeatureSource.USER: [user], FeatureSource.ITEM: [item]}.get(source, [])
    if source == FeatureSource.INTERACTION:
        required[time] = FeatureType.FLOAT
        needed = [user, item, time]
        if dataset.benchmark_filename_list is not None and dataset.item_list_field in header:
            required[dataset.item_list_field] = FeatureType.TOKEN_SEQ
            needed.remove(time)  # the rows' own order is enough
            if dataset.item_list_field not in (config["alias_of_item_id"] or ()):
                raise ConfigError(f"alias_of_item_id: must name '{dataset.item_list_field}' of {path}, it holds items")
    for name in needed:
        if name not in header:
            key = {user: "USER_ID_FIELD", item: "ITEM_ID_FIELD"}.get(name, "TIME_FIELD")
            raise DataError(f"{path}, line 1: no column '{name}' ({key}; there are: {', '.join(header)})")
        if name not in names:
            raise ConfigError(f"unload_col: column '{name}' of {path} is needed and must be loaded")
    action = config["action_field"]
    if source == FeatureSource.INTERACTION and action is not None and action not in names:
        raise ConfigError(f"action_field: {path} has no column '{action}' to load (there are: {', '.join(header)})")
    for name, kind in required.items():
        if name in names and header[name] != kind:
            found = f"{name}:{header[name].value}"
            raise DataError(f"{path}, line 1: column '{name}' must be {name}:{kind.value}, not {found}")


def check_unique(path: Path, ids: pd.Series) -> None:
    """Raises DataError where an id of the column has two rows."""
    repeated = ids.index[ids.duplicated()]
    if len(repeated):
        again = repeated[0]
        first = ids.index[ids == ids[again]][0]
        places = [place_of(path, label) for label in (again, first)]
        raise DataError(f"{path}, {places[0]}: {ids.name} '{ids[again]}' is already in {places[1]}")


def check_interactions(dataset: Any, path: Path, table: Table) -> None:
    """Every interaction has a time; one without a user or item is dropped later, but not from a given split.

    Raises:
        DataError: one has not.
    """
    bad = {}
    if dataset.time_field in table.columns:
        times = table.columns[dataset.time_field]
        bad[dataset.time_field] = ~np.isfinite(times) if times.dtype.kind == "f" else np.zeros(1, dtype=bool)
    if dataset.benchmark_filename_list is not None:
        bad |= {name: table.columns[name] == 0 for name in (dataset.uid_field, dataset.iid_field)}
    for name, rows in bad.items():
        if rows.any():
            raise DataError(
                f"{path}, {table.place(int(np.argmax(rows)))}, column {name}: missing or not finite, as in "
                f"{int(rows.sum())} line(s) of the file; every interaction needs a {name}"
            )


def mixed_units(path: Path, name: str, table: Table) -> str | None:
    """A warning about times that are written in several units, such as seconds and milliseconds."""
    units = units_of(table.columns[name]) if name in table.columns else {}
    if not units:
        return None
    counts = {unit: int(rows.sum()) for unit, rows in units.items()}
    few = min(counts, key=lambda unit: counts[unit])
    first = table.place(int(np.argmax(units[few])))
    listed = ", ".join(f"{count} in {unit}" for unit, count in counts.items())
    return (
        f"{path}, column {name}: times seem to be in several units ({listed}), the first in {few} in {first}: "
        "users' histories are then out of order; write all times in one unit"
    )
