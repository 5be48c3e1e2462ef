"""AtomicDataset: which interactions, users and items RecBole's atomic files hold, after the filters."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureSource, FeatureType

from recbole_hllm.allocator import give_back_freed_memory
from recbole_hllm.data.files import formats
from recbole_hllm.data.files.cached import CACHED_BYTES, VERSION, Prepared, contents, obtain
from recbole_hllm.data.files.choice import choose
from recbole_hllm.data.files.columns import check_columns, check_interactions, check_unique, mixed_units
from recbole_hllm.data.files.float_columns import check_numerical
from recbole_hllm.data.files.formats import find_table, read_header, read_table
from recbole_hllm.data.files.ids import match_side_features, number_actions, number_alike
from recbole_hllm.data.files.interactions import LENGTHS, PHASE, Choice, fill_numbers, filtered, number_sequences, sort
from recbole_hllm.data.files.raw_numbers import warn_of_raw_numbers
from recbole_hllm.data.files.sources import where_to_get
from recbole_hllm.data.files.table import Table, joined
from recbole_hllm.data.files.tokens import Tokens
from recbole_hllm.data.rows.padded_histories import leave_padding_out
from recbole_hllm.errors import ConfigError, DataError, UserError
from recbole_hllm.storage.cache import cache_folder, digest

# Filters, and their values that leave everything as it is.
_FILTERS: dict[str, tuple[Any, ...]] = {
    "rm_dup_inter": (None,),
    "val_interval": (None, {}),
    "user_inter_num_interval": (None, "[0,inf)"),
    "item_inter_num_interval": (None, "[0,inf)"),
    "filter_inter_by_user_or_item": (None, False),
}


class AtomicDataset(SequentialDataset):
    """RecBole's data set, read, filtered and numbered the same way for every model.

    Ids and interactions depend on ``<name>.inter`` and the filters only: rows of ``.user`` and ``.item`` add features,
    never users or items. ``field2id_token`` of ids are ``Tokens``.

    Attributes:
        inter_feat: the interactions by user, file of ``benchmark_filename`` and time: int32 ids, 0 for a missing one,
            and numbers, perhaps in a memory-mapped file.
        timestamps: (T,) times of the rows of ``inter_feat``: int32 or int64 where all are whole numbers, else float64;
            zeros where ready-made histories have none.
        lengths: (U,) how many interactions each user has; users that other tables add have none.
        actions: (T,) int64 number, from 1 on, of each row's value of ``action_field``; None without that key.
        phase: (T,) the file of ``benchmark_filename`` a row came from, 0 training, 1 validation, 2 test.
    """

    inter_feat: Any
    user_feat: Any
    item_feat: Any
    field2seqlen: dict[str, int]
    feat_name_list: list[str]

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
        """What the tables' headers say, and the rows of users and items; interactions are read when all is known that
        filters them."""
        for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"):
            if not self.config[key]:
                raise ConfigError(f"{key} must name a column of {token}.inter")
        if self.benchmark_filename_list is not None:
            self._check_benchmark(self.benchmark_filename_list)
        missing = [file for file in self._inter_files() if not file.exists()]
        if missing:
            hint = where_to_get(token) or "see data_path and dataset; the verb convert makes such files of other ones"
            raise DataError(f"data set '{token}': there is no {missing[0]}; {hint}")
        self._inter_columns = {file: self._describe(file, FeatureSource.INTERACTION) for file in self._inter_files()}
        self.user_feat = self._load_user_or_item_feat(token, dataset_path, FeatureSource.USER, "uid_field")
        self.item_feat = self._load_user_or_item_feat(token, dataset_path, FeatureSource.ITEM, "iid_field")
        self._load_additional_feat(token, dataset_path)

    def table_file(self, table: str) -> Path:
        """The file of ``inter``, ``user``, ``item``, or of another table."""
        return find_table(Path(self.dataset_path) / f"{self.dataset_name}.{table}")

    def _inter_files(self) -> list[Path]:
        names = self.benchmark_filename_list
        return [self.table_file(table) for table in (["inter"] if names is None else [f"{n}.inter" for n in names])]

    def _load_user_or_item_feat(self, token: str, dataset_path: Any, source: Any, field_name: Any) -> Any:
        """RecBole's, with files of any format."""
        file, field = self.table_file(source.value), getattr(self, field_name)
        feat = self._load_feat(file, source) if file.exists() else None
        if feat is not None:
            feat.drop_duplicates(subset=[field], keep="first", inplace=True)
        if field in self.field2source:
            self.field2source[field] = FeatureSource(source.value + "_id")
        return feat

    def _check_benchmark(self, names: Sequence[str]) -> None:
        """RecBole takes these files as they are; a filter that it would pass over in silence is refused."""
        if not isinstance(names, list) or len(names) != 3:
            raise ConfigError(
                f"benchmark_filename: {names} must be three names, such as ['train', 'valid', 'test'], on a command "
                "line with the quotation marks"
            )
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

    @property
    def _reading(self) -> dict[str, Any]:
        """How tables are to be read."""
        aliases = {*(self.config["alias_of_item_id"] or ()), *(self.config["alias_of_user_id"] or ())}
        ids = sorted({self.uid_field, self.iid_field, self.item_list_field, *aliases})
        return {"separator": self.config["field_separator"], "encoding": self.config["encoding"], "ids": ids}

    def _describe(self, path: Path, source: Any) -> dict[str, FeatureType]:
        """The columns of a table to be read, and what RecBole keeps of them."""
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return {}
        header = read_header(path, **self._reading)
        names = [name for name in header if (load is None or name in load) and name not in (unload or ())]
        self._check_columns(path, source, header, names)
        id_field = {FeatureSource.USER: self.uid_field, FeatureSource.ITEM: self.iid_field}.get(source)
        if names == [id_field]:
            return {}  # nothing but ids, which .inter knows
        for name in names:
            kind = header[name]
            if source != "link":
                self.field2source[name], self.field2type[name] = source, kind
            if "float" in kind.value:
                self.field2bucketnum[name] = 2
            if not kind.value.endswith("seq"):
                self.field2seqlen[name] = 1
        return {name: header[name] for name in names}

    def _load_feat(self, filepath: Path, source: Any) -> pd.DataFrame | None:
        kinds = self._describe(Path(filepath), source)
        if not kinds:
            return None
        table = read_table(Path(filepath), list(kinds), **self._reading)
        id_field = {FeatureSource.USER: self.uid_field, FeatureSource.ITEM: self.iid_field}.get(source)
        if id_field:
            check_unique(filepath, table[id_field].dropna())
        for name, kind in kinds.items():
            if kind.value.endswith("seq"):
                cells = formats.split(table[name], kind, self.config["seq_separator"], filepath)
                table[name] = self._cut(filepath, name, cells)
        return table

    def _check_columns(self, path: Path, source: Any, header: Any, names: Any) -> None:
        check_columns(self, path, source, header, names)

    def _check_interactions(self, path: Path, table: Table) -> None:
        check_interactions(self, path, table)

    def _checked(self) -> Any:
        """What ``_check_interactions`` depends on beside the columns: JSON-able."""

    def _cut(self, path: Path, name: str, cells: Sequence[Any]) -> list[Any]:
        """Sequences, at most as long as ``seq_len`` says."""
        limit = (self.config["seq_len"] or {}).get(name)
        if cut := sum(len(cell) > limit for cell in cells) if limit is not None else 0:
            self.logger.info(f"{path}: {cut} of {len(cells)} cells of {name} are cut to {limit} (seq_len)")
        kept = [cell[:limit] for cell in cells]
        self.field2seqlen[name] = max(map(len, kept))
        return kept

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

    # ---- interactions ----

    def _data_processing(self) -> None:
        self._take(self._interactions())
        super()._data_processing()

    def _data_filtering(self) -> None:
        """Done where interactions are read."""

    def _take(self, ready: Prepared) -> None:
        self.lengths = ready.columns.pop(LENGTHS)
        phase, times = ready.columns.pop(PHASE, None), ready.columns.get(self.time_field)
        self.inter_feat, self._tokens = pd.DataFrame(ready.columns, copy=False), ready.tokens
        rows = len(self.inter_feat)
        self.phase = np.broadcast_to(np.int8(0), rows) if phase is None else phase
        self.timestamps = np.zeros(rows) if times is None else times

    def _interactions(self) -> Prepared:
        """Read, filtered, sorted and numbered; from the cache where it holds the same."""
        files = [part for file in self._inter_columns for part in formats.parts_of(file)]
        kinds = [kind for columns in self._inter_columns.values() for kind in columns.values()]
        self.inter_feat = None  # for RecBole's field2feats
        choice = choose(self, {name for columns in self._inter_columns.values() for name in columns})
        large = sum(file.stat().st_size for file in files) >= CACHED_BYTES
        if not large or any(kind.value.endswith("seq") for kind in kinds):
            return self._prepare(choice)
        folder = cache_folder(self.config["cache_dir"], self.dataset_path)
        settings = {
            "columns": [[(name, kind.value) for name, kind in one.items()] for one in self._inter_columns.values()],
            "reading": self._reading, "checked": self._checked(), "benchmark": self.benchmark_filename_list,
            "fields": [choice.user, choice.item, choice.time],
            "filters": [choice.once, choice.values, choice.of_users, choice.of_items],
            "rows": [[key, field, digest(*Tokens(texts).buffers())] for key, field, texts in choice.of_rows],
        }  # fmt: skip
        name = f"interactions-{self.dataset_name}-{digest([str(file.resolve()) for file in files], settings)}"
        meta = {"version": VERSION, "files": contents(files, folder), "settings": settings}
        return obtain(folder / name, meta, lambda: self._prepare(choice))

    def _prepare(self, choice: Choice) -> Prepared:
        table, said = self._read()
        if self.benchmark_filename_list is None:
            said += filtered(table, choice)
        kinds = {name: kind for columns in self._inter_columns.values() for name, kind in columns.items()}
        number_sequences(table, kinds)
        if self.item_list_field not in table.columns or self.benchmark_filename_list is None:
            sort(table, self.uid_field, self.time_field)
        fill_numbers(table, kinds)
        pa.default_memory_pool().release_unused()  # of the blocks
        give_back_freed_memory()
        users, n_users = table.columns[self.uid_field], len(table.tokens[self.uid_field])
        lengths = np.bincount(users, minlength=n_users).astype(np.int32)
        return Prepared({**table.columns, LENGTHS: lengths}, table.tokens, said)

    def _read(self) -> tuple[Table, list[tuple[int, str]]]:
        """The rows of all files, and what was logged about them."""
        tables: list[Table] = []
        said: list[tuple[int, str]] = []
        for file, kinds in self._inter_columns.items():
            keys = {"exact": self.time_field, "seq_separator": self.config["seq_separator"]}
            table = formats.read_columns(file, kinds, **keys, **self._reading)
            self._check_interactions(file, table)
            if (text := mixed_units(file, self.time_field, table)) is not None:
                self.logger.warning(text)
                said.append((logging.WARNING, text))
            lengths = dict(self.field2seqlen)
            for name in [name for name, kind in kinds.items() if kind.value.endswith("seq")]:
                table.columns[name] = formats.as_objects(self._cut(file, name, list(table.columns[name])))
                self.field2seqlen[name] = max(self.field2seqlen[name], lengths.get(name, 0))
            tables.append(table)
        sizes = [len(table) for table in tables]
        whole = joined(tables, list(self._inter_columns))
        if self.benchmark_filename_list is not None:
            whole.columns[PHASE] = np.repeat(np.arange(len(sizes), dtype=np.int8), sizes)
            if self.item_list_field in whole.columns:
                leave_padding_out(self, whole, lambda: self.ids_in_file("item", self.iid_field))
        return whole, said

    def side_features(self) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """The tables of users and items that are loaded: attribute, column of ids and rows."""
        for name, field in (("user_feat", self.uid_field), ("item_feat", self.iid_field)):
            if getattr(self, name) is not None:
                yield name, field, getattr(self, name)

    def ids_in_file(self, suffix: Any, field: Any) -> Any:
        """The ids that have a row in ``<name>.user`` or ``<name>.item``; None without such a file."""
        path = self.table_file(suffix)
        if not path.exists():
            return None
        if field not in read_header(path, **self._reading):
            raise DataError(f"{path}, line 1: no column '{field}'")
        return pa.array(read_table(path, [field], **self._reading)[field].dropna(), pa.large_string())

    def _discretization(self) -> None:
        check_numerical(self, self.config["numerical_features"])
        super()._discretization()

    # ---- ids ----

    def _remap_ID_all(self) -> None:
        match_side_features(self, self._tokens)
        super()._remap_ID_all()
        self.actions = number_actions(self, self.config["action_field"])

    def _remap(self, remap_list: Any) -> None:
        """RecBole's; ids of the interactions are there already."""
        if any(feat is self.inter_feat for feat, _, _ in remap_list):
            number_alike(self, remap_list, self._tokens)
        else:
            super()._remap(remap_list)

    def _fill_nan(self) -> None:
        """RecBole's, of users and items; interactions are filled where they are read."""
        names = self.feat_name_list
        self.feat_name_list = [name for name in names if name != "inter_feat"]
        super()._fill_nan()
        self.feat_name_list = names

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
