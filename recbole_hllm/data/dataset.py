"""SequenceDataset: RecBole's SequentialDataset over flat arrays, the same users, items and targets for every model."""

import copy
import warnings
from pathlib import Path

import numpy as np
import torch
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_hllm.data import sequences as seq
from recbole_hllm.data.protocol import build_split, referenced
from recbole_hllm.data.reader import read_header, read_table, split_sequences
from recbole_hllm.data.sources import where_to_get
from recbole_hllm.errors import DataError


def create_dataset(config) -> "SequenceDataset":
    """Reads the data set a config names; nothing is unpickled or downloaded."""
    return SequenceDataset(config)


class SequenceDataset(SequentialDataset):
    """Users' histories in time order, from ``<name>.inter``.

    Ids, interactions and targets depend on ``<name>.inter`` and the filters only, never on the feature columns a
    model loads, so that all models of a table rank the same candidates for the same targets. Rows are computed when
    asked for: ``prefix`` rows equal those of RecBole's ``SequentialDataset``.

    Attributes:
        sequences: all users' items, times and offsets, full-precision time order, ties in file order.
        targets: (R,) flat positions of this part's targets, after ``build``.
        training_positions: flat positions of the training interactions, first items included, after ``build``.
        train_lengths: (U,) how many first interactions of each user are training data, after ``build``.
    """

    def __init__(self, config):
        self.rows = config.spec.rows
        self.targets = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # RecBole fills missing values in place
            super().__init__(config)

    # ---- reading ----

    def _load_data(self, token, dataset_path):
        folder = Path(dataset_path)
        names = self.benchmark_filename_list
        files = [f"{token}.inter"] if names is None else [f"{token}.{name}.inter" for name in names]
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            hint = where_to_get(token) or "see data_path and dataset, and RecBole's page on atomic files"
            raise DataError(f"data set '{token}': there is no {folder / missing[0]}; {hint}")
        super()._load_data(token, dataset_path)

    def _download(self):
        raise AssertionError("_load_data checks the files first")

    def _get_load_and_unload_col(self, source):
        """Ids, times and what filters name are read for every model, so that no model sees other interactions."""
        load, unload = super()._get_load_and_unload_col(source)
        filters = set(self.config["val_interval"] or ())
        needed = {
            FeatureSource.INTERACTION: {self.uid_field, self.iid_field, self.time_field} | filters,
            FeatureSource.USER: {self.uid_field} | filters if filters or load else set(),
            FeatureSource.ITEM: {self.iid_field} | filters if filters or load else set(),
        }
        if load is not None:
            load = load | needed.get(source, set())
        return load, unload

    def _load_feat(self, filepath, source):
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        separator, encoding = self.config["field_separator"], self.config["encoding"]
        header = read_header(Path(filepath), separator, encoding)
        names = [name for name in header if (load is None or name in load) and name not in (unload or ())]
        self._check_columns(filepath, source, header, names)
        table = read_table(Path(filepath), names, separator, encoding)
        for name in names:
            self._set_column(table, name, header[name], source)
        return table

    def _check_columns(self, path, source, header, names):
        required = {self.uid_field: FeatureType.TOKEN, self.iid_field: FeatureType.TOKEN}
        if source == FeatureSource.INTERACTION:
            needed = [self.uid_field, self.iid_field, self.time_field]
            required[self.time_field] = FeatureType.FLOAT
        else:
            needed = {FeatureSource.USER: [self.uid_field], FeatureSource.ITEM: [self.iid_field]}.get(source, [])
        for name in needed:
            if name not in header:
                raise DataError(f"{path}, line 1: no column '{name}' (there are: {', '.join(header)})")
            if name not in names:
                raise DataError(f"load_col: column '{name}' of {path} is needed and must be loaded")
        for name, kind in required.items():
            if name in names and header[name] != kind:
                raise DataError(f"{path}, line 1: column '{name}' must be {name}:{kind.value}, not {header[name].value}")

    def _set_column(self, table, name, kind, source):
        """What RecBole keeps of a column, and its sequences as arrays."""
        if source != "link":
            self.field2source[name], self.field2type[name] = source, kind
        if "float" in kind.value:
            self.field2bucketnum[name] = 2
        if not kind.value.endswith("seq"):
            self.field2seqlen[name] = 1
            return
        cells = split_sequences(table[name], self.config["seq_separator"], kind == FeatureType.FLOAT_SEQ)
        limit = (self.config["seq_len"] or {}).get(name)
        table[name] = [cell[:limit] for cell in cells]
        self.field2seqlen[name] = max(map(len, table[name]))

    def _load_user_or_item_feat(self, token, dataset_path, source, field_name):
        load, _ = self._get_load_and_unload_col(source)
        path = Path(dataset_path) / f"{token}.{source.value}"
        if load != set() and path.is_file():
            field = getattr(self, field_name)
            read = read_table(path, [field], self.config["field_separator"], self.config["encoding"])[field]
            if read.duplicated().any():
                row = int(np.flatnonzero(read.duplicated())[0])
                first = int(np.flatnonzero(read == read[row])[0])
                raise DataError(f"{path}, line {row + 2}: {field} '{read[row]}' is already in line {first + 2}")
        return super()._load_user_or_item_feat(token, dataset_path, source, field_name)

    # ---- filtering, ids and order ----

    def _remove_duplication(self):
        keep = self.config["rm_dup_inter"]
        if keep is None:
            return
        in_time = self.inter_feat.sort_values(self.time_field, kind="stable")
        repeated = in_time.duplicated([self.uid_field, self.iid_field], keep=keep)
        self.inter_feat.drop(in_time.index[repeated], inplace=True)

    def _filter_by_field_value(self):
        before = {name: set(feat[field]) for name, field, feat in self._side_features()}
        super()._filter_by_field_value()
        for name, field, feat in self._side_features():
            gone = before[name] - set(feat[field])
            if gone:
                self.inter_feat.drop(self.inter_feat.index[self.inter_feat[field].isin(gone)], inplace=True)

    def _side_features(self):
        for name, field in (("user_feat", self.uid_field), ("item_feat", self.iid_field)):
            if getattr(self, name) is not None:
                yield name, field, getattr(self, name)

    def _filter_inter_by_user_or_item(self):
        """Asked for by the user, interactions without a row in .user or .item go, whatever columns are loaded."""
        if not self.config.external_config_dict.get("filter_inter_by_user_or_item"):
            return
        for suffix, field in (("user", self.uid_field), ("item", self.iid_field)):
            path = Path(self.dataset_path) / f"{self.dataset_name}.{suffix}"
            if path.is_file():
                ids = read_table(path, [field], self.config["field_separator"], self.config["encoding"])[field]
                self.inter_feat.drop(self.inter_feat.index[~self.inter_feat[field].isin(ids)], inplace=True)

    def _reset_index(self):
        if self.inter_feat.empty:
            raise DataError(
                f"data set '{self.dataset_name}': no interaction is left after filtering; look at rm_dup_inter, "
                "val_interval, user_inter_num_interval and item_inter_num_interval"
            )
        # Rows of users and items that no interaction names would otherwise become ids and candidates.
        for name, field, feat in self._side_features():
            setattr(self, name, feat[feat[field].isin(self.inter_feat[field].unique())])
        for name in self.feat_name_list:
            getattr(self, name).reset_index(drop=True, inplace=True)

    def _remap_ID_all(self):
        super()._remap_ID_all()
        times = self.inter_feat[self.time_field].to_numpy(np.float64)
        self._check_times(times)
        self.phase = np.zeros(len(times), dtype=np.int8)
        if self.benchmark_filename_list is not None:
            self.phase = np.repeat(np.arange(len(self.file_size_list)), self.file_size_list)
        if not self._histories_given:
            order = np.lexsort((times, self.phase, self.inter_feat[self.uid_field].to_numpy()))
            self.inter_feat = self.inter_feat.iloc[order].reset_index(drop=True)
            times, self.phase = times[order], self.phase[order]
        self.timestamps = times

    @property
    def _histories_given(self):
        """The files of ``benchmark_filename`` hold a history per row (RecBole's sequential benchmark format)."""
        return self.benchmark_filename_list is not None and self.iid_field + self.config["LIST_SUFFIX"] in self.inter_feat

    def _benchmark_presets(self):
        if self._histories_given:
            super()._benchmark_presets()

    def _check_times(self, times):
        bad = ~np.isfinite(times)
        if bad.any():
            raise DataError(
                f"{self.dataset_name}.inter, column {self.time_field}: {int(bad.sum())} values are missing or not "
                "finite; every interaction needs a time"
            )

    # ---- rows ----

    def _change_feat_format(self):
        Dataset._change_feat_format(self)
        self.history_feat = self.inter_feat
        users, items = self.inter_feat[self.uid_field].numpy(), self.inter_feat[self.iid_field].numpy()
        if self._histories_given:
            histories = self.inter_feat[self.item_id_list_field].numpy()
            lengths = self.inter_feat[self.item_list_length_field].numpy()
            self.sequences = seq.Sequences.from_histories(users, histories, lengths, items, self.timestamps)
            self.phase = np.repeat(self.phase, lengths + 1)
        else:
            self._aug_presets()
            self.sequences = seq.Sequences.from_sorted(users, items, self.timestamps, self.user_num)

    def build(self):
        """Splits into training, validation and test parts; a part without rows is empty.

        Raises:
            DataError: nobody is left to test, or with ``strict_data`` a user is too short for the split.
        """
        self._change_feat_format()
        if self.config["eval_args"]["order"] != "TO":
            raise DataError("eval_args: sequences need order: TO")
        split = build_split(self)
        self._drop_unused_col()
        begin = self.sequences.offsets[:-1]
        self.train_lengths = split.train_lengths
        # Each user's first item is no target but is training data all the same, unless histories overlap.
        self.training_positions = (
            split.train if self._histories_given else _ranges(begin, begin + split.train_lengths)
        )
        return [self._part("train", split.train), self._part("valid", split.valid), self._part("test", split.test)]

    def _part(self, phase, targets):
        part = copy.copy(self)
        if phase == "train" and self.rows == "window":
            part.windows = self._cut_windows()
        elif self.rows == "window":
            part.rows = "prefix"
            part.max_item_list_len = self.config["MAX_ITEM_LIST_LENGTH_TEST"] or self.max_item_list_len
        part.targets = self.training_positions if phase == "train" and self.rows != "prefix" else targets
        # Ready-made histories: a row stands where its target's sequence does.
        rows = self.sequences.of(part.targets) if self._histories_given else part.targets
        part.inter_feat = _take(self.history_feat, torch.from_numpy(rows))
        return part

    def _cut_windows(self):
        return seq.windows(
            self.sequences.offsets[:-1],
            self.train_lengths,
            size=self.max_item_list_len + 1,
            chunk=self.config["data_split"] is not False,
            overlap=0 if "chunks" in referenced(self.config) else 1,
        )

    def __len__(self):
        return len(self.windows) if self._has_windows else len(self.inter_feat)

    @property
    def _has_windows(self):
        return self.rows == "window" and self.targets is not None

    def __getitem__(self, index, join=True):
        if self._has_windows:
            return self.window_rows(index)
        if self.rows == "prefix" and self.targets is not None and not self._histories_given:
            rows = self.prefix_rows(index)
        else:
            rows = _take(self.inter_feat, _as_index(index, len(self.inter_feat)))
        return self.join(rows) if join else rows

    def prefix_rows(self, index) -> Interaction:
        """A target and the items before it, at most ``MAX_ITEM_LIST_LENGTH``, padded on the right with 0."""
        index = _as_index(index, len(self.targets))
        targets = torch.from_numpy(self.targets)[index]
        users = self.inter_feat[self.uid_field][index]
        begin = torch.maximum(torch.from_numpy(self.sequences.offsets)[users], targets - self.max_item_list_len)
        positions, real = _padded_positions(begin, targets, self.max_item_list_len)
        rows = dict(_take(self.inter_feat, index).interaction)
        rows[self.item_list_length_field] = targets - begin
        for field, values in self.history_feat.interaction.items():
            if field != self.uid_field:
                keep = real.view(*real.shape, *[1] * (values.dim() - 1))
                rows[getattr(self, f"{field}_list_field")] = values[positions] * keep
        return Interaction(rows)

    def window_rows(self, index) -> Interaction:
        """(B, S + 1) items of a chunk of each user's training data, padded on the right with 0, and its length."""
        bounds = torch.from_numpy(self.windows)[_as_index(index, len(self.windows))]
        begin, end = bounds[:, 0], bounds[:, 1]
        positions, real = _padded_positions(begin, end, self.max_item_list_len + 1)
        users = torch.from_numpy(self.sequences.users[self.sequences.of(begin.numpy())])
        items = torch.from_numpy(self.sequences.items)[positions] * real
        return Interaction(
            {self.uid_field: users, self.item_id_list_field: items, self.item_list_length_field: end - begin}
        )

    def histories(self, index) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers and items of everything before each target, not cut to ``MAX_ITEM_LIST_LENGTH``."""
        targets = self.targets[np.asarray(index)]
        begin = self.sequences.offsets[self.sequences.of(targets)]
        rows = np.repeat(np.arange(len(targets)), targets - begin)
        return torch.from_numpy(rows), torch.from_numpy(self.sequences.items[_ranges(begin, targets)])

    # ---- what RecBole asks of a data set ----

    def inter_matrix(self, form="coo", value_field=None):
        """(users, items) sparse matrix of the training interactions."""
        rows = self.history_feat if self.targets is None else _take(self.history_feat, self.training_positions)
        return self._create_sparse_matrix(rows, self.uid_field, self.iid_field, form, value_field)

    def training_counts(self) -> np.ndarray:
        """(n_items,) how often each item occurs in the training interactions."""
        return np.bincount(self.sequences.items[self.training_positions], minlength=self.item_num)

    def statistics(self) -> dict[str, float]:
        """Users, items and interactions after filtering (padding not counted), and the mean length."""
        lengths = self.sequences.lengths
        users, total = int((lengths > 0).sum()), int(lengths.sum())
        return {"users": users, "items": self.item_num - 1, "interactions": total, "mean_length": total / users}


def _take(feat: Interaction, index) -> Interaction:
    return Interaction({field: values[index] for field, values in feat.interaction.items()})


def _as_index(index, size) -> torch.Tensor:
    """Whatever RecBole indexes with (number, list, slice, array, tensor) as a tensor of row numbers."""
    if isinstance(index, slice):
        return torch.arange(size)[index]
    index = torch.as_tensor(index)
    return torch.nonzero(index)[:, 0] if index.dtype == torch.bool else index.long().reshape(-1)


def _padded_positions(begin, end, width):
    """(B, width) flat positions begin, begin + 1, ... and which of them are before end."""
    positions = begin[:, None] + torch.arange(width)
    real = positions < end[:, None]
    return torch.where(real, positions, 0), real


def _ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """begin[0]..end[0]-1, begin[1]..end[1]-1, ... in one array."""
    lengths = end - begin
    total = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(begin - total[:-1], lengths) + np.arange(total[-1])
