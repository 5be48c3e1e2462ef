"""AtomicDataset: which interactions, users and items RecBole's atomic files hold, after the filters."""

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureSource, FeatureType

from recbole_hllm.data.files.columns import check_columns, check_interactions, check_unique
from recbole_hllm.data.files.float_columns import check_numerical
from recbole_hllm.data.files.formats import find_table, read_header, read_table
from recbole_hllm.data.files.raw_numbers import warn_of_raw_numbers
from recbole_hllm.data.files.reader import line_of, split_numbers, split_sequences
from recbole_hllm.data.files.sources import where_to_get
from recbole_hllm.data.rows.padded_histories import leave_padding_out
from recbole_hllm.errors import ConfigError, DataError, UserError

_MOST_ACTIONS = 1000
# Filters, and their values that leave everything as it is.
_FILTERS: dict[str, tuple[Any, ...]] = {
    "rm_dup_inter": (None,),
    "val_interval": (None, {}),
    "user_inter_num_interval": (None, "[0,inf)"),
    "item_inter_num_interval": (None, "[0,inf)"),
}
_INTERVAL = re.compile(r"[\[(]([^,]*),([^,]*)[\])]")


class AtomicDataset(SequentialDataset):
    """RecBole's data set, read, filtered and numbered the same way for every model.

    Ids and interactions depend on ``<name>.inter`` and the filters only: rows of ``.user`` and ``.item`` add features,
    never users or items.

    Attributes:
        timestamps: (T,) float64 times of the rows of ``inter_feat``; zeros where ready-made histories have none.
        actions: (T,) int64 number, from 1 on, of each row's value of ``action_field``; None without that key.
        phase: (T,) the file of ``benchmark_filename`` a row came from, 0 training, 1 validation, 2 test.
    """

    inter_feat: Any
    user_feat: Any
    item_feat: Any
    field2seqlen: dict[str, int]
    file_size_list: list[int]

    def __init__(self, config: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # RecBole fills missing values in place
                super().__init__(config)
        except UserError:
            raise
        except ValueError as error:  # how RecBole says that data and config do not fit
            raise DataError(f"data set '{config['dataset']}': {error}") from error

    def _get_preset(self) -> None:
        super()._get_preset()
        self.item_list_field = self.config["ITEM_ID_FIELD"] + self.config["LIST_SUFFIX"]

    def _load_data(self, token: str, dataset_path: Any) -> None:
        for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"):
            if not self.config[key]:
                raise ConfigError(f"{key} must name a column of {token}.inter")
        if self.benchmark_filename_list is not None:
            self._check_benchmark(self.benchmark_filename_list)
        missing = [file for file in self._inter_files() if not file.is_file()]
        if missing:
            hint = where_to_get(token) or "see data_path and dataset, and RecBole's page on atomic files"
            raise DataError(f"data set '{token}': there is no {missing[0]}; {hint}")
        super()._load_data(token, dataset_path)
        if self.histories_given:
            leave_padding_out(self, lambda: self._ids_in_file("item", self.iid_field))

    def _table_file(self, table: str) -> Path:
        """The file of ``inter``, ``user``, ``item``, or of another table."""
        return find_table(Path(self.dataset_path) / f"{self.dataset_name}.{table}")

    def _inter_files(self) -> list[Path]:
        names = self.benchmark_filename_list
        return [self._table_file(table) for table in (["inter"] if names is None else [f"{n}.inter" for n in names])]

    def _load_inter_feat(self, token: str, dataset_path: Any) -> None:
        """RecBole's, with files of any format."""
        tables: list[Any] = []
        lengths: dict[str, int] = {}
        for file in self._inter_files():
            tables.append(self._load_feat(file, FeatureSource.INTERACTION))
            lengths = {name: max(length, lengths.get(name, 0)) for name, length in self.field2seqlen.items()}
        self.inter_feat, self.field2seqlen = tables[0], lengths
        if self.benchmark_filename_list is not None:
            self.inter_feat, self.file_size_list = pd.concat(tables, ignore_index=True), list(map(len, tables))

    def _load_user_or_item_feat(self, token: str, dataset_path: Any, source: Any, field_name: Any) -> Any:
        """RecBole's, with files of any format."""
        file, field = self._table_file(source.value), getattr(self, field_name)
        feat = self._load_feat(file, source) if file.is_file() else None
        if feat is not None:
            feat.drop_duplicates(subset=[field], keep="first", inplace=True)
        if field in self.field2source:
            self.field2source[field] = FeatureSource(source.value + "_id")
        return feat

    def _check_benchmark(self, names: Sequence[str]) -> None:
        """RecBole takes these files as they are; a filter that it would pass over in silence is refused."""
        if not isinstance(names, list) or len(names) != 3:
            raise ConfigError(f"benchmark_filename: {names} must be three names, such as [train, valid, test]")
        for key, unfiltered in _FILTERS.items():
            if self.config[key] not in unfiltered:
                raise ConfigError(f"{key} and benchmark_filename cannot be set together: those files are not filtered")

    def _get_load_and_unload_col(self, source: Any) -> tuple[Any, Any]:
        """Ids, times and what filters name are read for every model, so that no model sees other interactions."""
        try:
            load, unload = super()._get_load_and_unload_col(source)
        except ValueError as error:
            raise ConfigError(f"load_col and unload_col cannot be set together for the same file: {error}") from error
        filters = set(self.config["val_interval"] or ())
        needed = {
            FeatureSource.INTERACTION: {self.uid_field, self.iid_field, self.time_field},
            FeatureSource.USER: {self.uid_field} if filters or load else set(),
            FeatureSource.ITEM: {self.iid_field} if filters or load else set(),
        }
        if self.benchmark_filename_list is not None:
            needed[FeatureSource.INTERACTION].add(self.item_list_field)
        if load is not None and source in needed:
            load = load | needed[source] | (filters if needed[source] else set())
        return load, unload and unload - filters

    def _load_feat(self, filepath: Path, source: Any) -> pd.DataFrame | None:
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        separator, encoding = self.config["field_separator"], self.config["encoding"]
        header = read_header(filepath, separator, encoding)
        names = [name for name in header if (load is None or name in load) and name not in (unload or ())]
        self._check_columns(filepath, source, header, names)
        id_field = {FeatureSource.USER: self.uid_field, FeatureSource.ITEM: self.iid_field}.get(source)
        if names == [id_field]:
            return None  # nothing but ids, which .inter knows
        table = read_table(filepath, names, separator, encoding)
        if id_field:
            check_unique(filepath, table[id_field].dropna())
        elif source == FeatureSource.INTERACTION:
            self._check_interactions(filepath, table)
        for name in names:
            self._set_column(filepath, table, name, header[name], source)
        return table

    def _check_columns(self, path: Path, source: Any, header: Any, names: Any) -> None:
        check_columns(self, path, source, header, names)

    def _check_interactions(self, path: Path, table: pd.DataFrame) -> None:
        check_interactions(self, path, table)

    def _init_alias(self) -> None:
        """RecBole takes an alias that is no column of ids for one, or ends without a word."""
        for key in ("alias_of_user_id", "alias_of_item_id"):
            for name in self.config[key] or ():
                kind = self.field2type.get(name)
                if kind is None:
                    there = ", ".join(self.field2type)
                    raise ConfigError(f"{key}: no column '{name}' is loaded (load_col); there are {there}")
                if kind not in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ):
                    raise ConfigError(f"{key}: '{name}' is a {kind.value} column, not token or token_seq")
        super()._init_alias()

    def _set_column(self, path: Path, table: pd.DataFrame, name: str, kind: FeatureType, source: Any) -> None:
        """What RecBole keeps of a column, and its sequences as arrays."""
        if source != "link":
            self.field2source[name], self.field2type[name] = source, kind
        if "float" in kind.value:
            self.field2bucketnum[name] = 2
        if not kind.value.endswith("seq"):
            self.field2seqlen[name] = 1
            return
        separator = self.config["seq_separator"]
        if kind == FeatureType.FLOAT_SEQ:
            cells = split_numbers(table[name], separator, path)
        else:
            cells = split_sequences(table[name], separator)
        limit = (self.config["seq_len"] or {}).get(name)
        table[name] = [cell[:limit] for cell in cells]
        if cut := sum(len(cell) > limit for cell in cells) if limit is not None else 0:
            self.logger.info(f"{path}: {cut} of {len(cells)} cells of {name} are cut to {limit} (seq_len)")
        self.field2seqlen[name] = max(map(len, table[name]))

    # ---- filtering, ids and order ----

    def _data_filtering(self) -> None:
        """RecBole's filters in its order, and how many interactions each leaves out."""
        filters = {
            "rm_dup_inter": self._remove_duplication,
            "val_interval": self._filter_by_field_value,
            "filter_inter_by_user_or_item": self._filter_inter_by_user_or_item,
            "user_inter_num_interval, item_inter_num_interval": self._filter_by_inter_num,
        }
        self._filter_nan_user_or_item()
        for keys, leave_out in filters.items():
            before = len(self.inter_feat)
            leave_out()
            if gone := before - len(self.inter_feat):
                self.logger.info(f"{keys}: {gone} of {before} interactions are left out")
        self._reset_index()

    def _filter_nan_user_or_item(self) -> None:
        """Drops interactions without a user or item, with a warning."""
        for field, side in ((self.uid_field, "user_feat"), (self.iid_field, "item_feat")):
            for name in ("inter_feat", side):
                feat = getattr(self, name)
                if feat is not None and feat[field].isna().any():
                    empty = feat.index[feat[field].isna()]
                    self.logger.warning(
                        f"{self.dataset_name}.{name.removesuffix('_feat')}: {len(empty)} rows without {field} are left "
                        f"out, the first in line {line_of(empty[0])}"
                    )
                    setattr(self, name, feat.drop(index=empty))

    def _remove_duplication(self) -> None:
        keep = self.config["rm_dup_inter"]
        if keep is not None:
            in_time = self.inter_feat.sort_values(self.time_field, kind="stable")
            self.inter_feat = in_time.drop_duplicates([self.uid_field, self.iid_field], keep=keep)

    def _parse_intervals_str(self, intervals_str: Any) -> Any:
        for interval in [] if intervals_str is None else str(intervals_str).split(";"):
            match = _INTERVAL.fullmatch(interval.strip())
            try:
                legal = match and float(match[1]) <= float(match[2])
            except ValueError:
                legal = False
            if not legal:
                raise ConfigError(
                    f"'{interval}' is not an interval such as [5,inf) or (0,1], needed in user_inter_num_interval, "
                    "item_inter_num_interval and val_interval"
                )
        return super()._parse_intervals_str(intervals_str)

    def _filter_by_field_value(self) -> None:
        """``val_interval``; with a user or item that is filtered out, or has no row, its interactions go too."""
        for field, allowed in (self.config["val_interval"] or {}).items():
            self._check_filter(field, allowed)
        super()._filter_by_field_value()
        for _, field, feat in self._side_features():
            if any(name in feat and name != field for name in self.config["val_interval"] or ()):
                self.inter_feat = self.inter_feat[self.inter_feat[field].isin(feat[field])]

    def _check_filter(self, field: Any, allowed: Any) -> None:
        kind = self.field2type.get(field)
        if kind is None:
            raise ConfigError(f"val_interval: there is no column '{field}'; columns: {', '.join(self.field2type)}")
        if kind in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
            raise ConfigError(f"val_interval: '{field}' is a {kind.value} column; only token and float columns filter")
        if kind == FeatureType.TOKEN and not (isinstance(allowed, list) and all(isinstance(v, str) for v in allowed)):
            raise ConfigError(f"val_interval: '{field}' is a token column and needs a list of texts, not {allowed}")

    def _side_features(self) -> Iterator[Any]:
        for name, field in (("user_feat", self.uid_field), ("item_feat", self.iid_field)):
            if getattr(self, name) is not None:
                yield name, field, getattr(self, name)

    def _filter_inter_by_user_or_item(self) -> None:
        """Interactions without a row in .user or .item, whatever columns are loaded."""
        if not self.config["filter_inter_by_user_or_item"]:
            return
        for suffix, field in (("user", self.uid_field), ("item", self.iid_field)):
            ids = self._ids_in_file(suffix, field)
            if ids is not None:
                self.inter_feat = self.inter_feat[self.inter_feat[field].isin(ids)]

    def _ids_in_file(self, suffix: Any, field: Any) -> Any:
        """The ids that have a row in ``<name>.user`` or ``<name>.item``; None without such a file."""
        path = self._table_file(suffix)
        if not path.is_file():
            return None
        separator, encoding = self.config["field_separator"], self.config["encoding"]
        if field not in read_header(path, separator, encoding):
            raise DataError(f"{path}, line 1: no column '{field}'")
        return read_table(path, [field], separator, encoding)[field]

    def _discretization(self) -> None:
        check_numerical(self, self.config["numerical_features"])
        super()._discretization()

    def _reset_index(self) -> None:
        if self.inter_feat.empty:
            raise DataError(
                f"data set '{self.dataset_name}': no interaction is left after filtering; look at rm_dup_inter, "
                "val_interval, user_inter_num_interval and item_inter_num_interval"
            )
        self.inter_feat = self.inter_feat.reset_index(drop=True)

    def _match_side_features(self) -> None:
        """Users and items are those of the interactions: rows of others would become ids and candidates."""
        items = self._items_of_interactions()
        self._report_missing_rows(items)
        known = {self.uid_field: self.inter_feat[self.uid_field].unique(), self.iid_field: items}
        for name, field, feat in self._side_features():
            kept = feat[feat[field].isin(known[field])].reset_index(drop=True)
            if gone := len(feat) - len(kept):
                file = f"{self.dataset_name}.{name.removesuffix('_feat')}"
                self.logger.info(f"{file}: {gone} of {len(feat)} rows are left out, of which there is no interaction")
            setattr(self, name, kept)

    def _items_of_interactions(self) -> Any:
        items = self.inter_feat[self.iid_field].to_numpy()
        if self.histories_given:
            items = np.concatenate([items, *self.inter_feat[self.item_list_field]])
        return pd.unique(items)

    def _report_missing_rows(self, items: Any) -> None:
        """Counts items without a row in .item; texts are counted where they are read."""
        rows = self.item_feat[self.iid_field] if self.item_feat is not None else None
        if rows is None and self.config["strict_data"]:
            rows = self._ids_in_file("item", self.iid_field)
        if rows is None:
            return
        missing = items[~pd.Series(items).isin(rows).to_numpy()]
        if len(missing):
            file = self._table_file("item")
            message = f"{file}: {len(missing)} of {len(items)} items have no row, such as {missing[0]}"
            if self.config["strict_data"]:
                raise DataError(f"{message}. Add them, or set strict_data: False to continue without their features")
            self.logger.warning(f"{message}; their features are empty")

    def _remap_ID_all(self) -> None:
        self._match_side_features()
        super()._remap_ID_all()
        n_rows = len(self.inter_feat)
        times = self.inter_feat[self.time_field].to_numpy(np.float64) if self.time_field in self.inter_feat else None
        self.timestamps = np.zeros(n_rows) if times is None else times
        self.phase = np.zeros(n_rows, dtype=np.int8)
        if self.benchmark_filename_list is not None:
            self.phase = np.repeat(np.arange(len(self.file_size_list)), self.file_size_list)
        if not self.histories_given:
            order = np.lexsort((self.timestamps, self.phase, self.inter_feat[self.uid_field].to_numpy()))
            self.inter_feat = self.inter_feat.iloc[order].reset_index(drop=True)
            self.timestamps, self.phase = self.timestamps[order], self.phase[order]
        self.actions = self._number_actions()

    def _number_actions(self) -> Any:
        """(T,) int64, 1, 2, ... for each value of the column ``action_field`` in rising order; None without."""
        field = self.config["action_field"]
        if field is None:
            return None
        if self.histories_given:
            raise ConfigError(f"action_field: '{field}': files of histories have no actions; leave the key out")
        if self.field2type[field] not in (FeatureType.TOKEN, FeatureType.FLOAT):
            raise ConfigError(f"action_field: '{field}' is a {self.field2type[field].value} column, not token or float")
        values, numbers = np.unique(self.inter_feat[field].to_numpy(), return_inverse=True)
        if len(values) > _MOST_ACTIONS:
            raise ConfigError(
                f"action_field: '{field}' has {len(values)} values, and at most {_MOST_ACTIONS} can be kinds of action"
            )
        return numbers.astype(np.int64) + 1

    def _normalize(self) -> None:
        warn_of_raw_numbers(self)
        super()._normalize()

    @property
    def histories_given(self) -> bool:
        """The files of ``benchmark_filename`` hold a history per row (RecBole's sequential benchmark format)."""
        return self.benchmark_filename_list is not None and self.item_list_field in self.inter_feat

    def _benchmark_presets(self) -> None:
        """What RecBole keeps of ready-made histories, whatever the item column is called."""
        if not self.histories_given:
            return
        suffix = self.config["LIST_SUFFIX"]
        for field in [field for field in self.inter_feat if field + suffix in self.inter_feat]:
            setattr(self, f"{field}_list_field", field + suffix)
        self.set_field_property(self.item_list_length_field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        self.inter_feat[self.item_list_length_field] = self.inter_feat[self.item_list_field].agg(len)
