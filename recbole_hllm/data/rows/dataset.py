"""SequenceDataset: RecBole's SequentialDataset over flat arrays, the same users, items and targets for every model."""

import copy
from dataclasses import replace

import numpy as np
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction

from recbole_hllm.data.files.atomic import AtomicDataset
from recbole_hllm.data.protocol import TRAINED_ON, build_split, referenced, targets_together
from recbole_hllm.data.rows import sequences as seq
from recbole_hllm.errors import ConfigError, DataError

# Full-precision times of the rows of our own models, in seconds: of the items of a history, and of its target.
EVENT_TIMES, EVENT_TIME = "event_time_list", "event_time"
# Place of a training row among all of them, for models that keep something for each.
ROW_NUMBER = "row_number"
# Numbers of their actions or ratings, 0 is padding; there with the key ``action_field``.
EVENT_ACTIONS = "event_action_list"


def create_dataset(config) -> "SequenceDataset":
    """Reads the data set a config names; nothing is unpickled or downloaded."""
    from recbole_hllm.data.rows import (
        labelled,  # built on this module
        split_rows,  # built on this module
    )

    on_splits = config.spec.model.TRAINED_ON_SPLITS
    if config.spec.rows == "labelled":
        return (split_rows.LabelledSplitDataset if on_splits else labelled.LabelledDataset)(config)
    return (split_rows.SplitDataset if on_splits else SequenceDataset)(config)


class SequenceDataset(AtomicDataset):
    """Users' histories in time order, from ``<name>.inter``.

    Ids, interactions and targets depend on ``<name>.inter`` and the filters only, never on the feature columns a
    model loads, so that all models of a table rank the same candidates for the same targets. Rows are computed when
    asked for: ``prefix`` rows equal those of RecBole's ``SequentialDataset``.

    Attributes:
        sequences: all users' items, times and offsets, full-precision time order, ties in file order.
        targets: (R,) flat positions of the targets of this part's rows, after ``build``; of several the first.
        held_out, held_out_offsets: of a part to evaluate: (P,) flat positions of all targets; row ``r`` looks for those
            from ``held_out_offsets[r]`` to ``held_out_offsets[r + 1]``, by default its one.
        labels: (T,) 0/1 label of each interaction; None where rows have none.
        training_positions: flat positions of the training interactions, first items included, after ``build``.
        train_lengths: (U,) how many first interactions of each user are training data, after ``build``.
        whole_training: both of these before ``train_user_fraction``, ``train_min_items`` and ``train_first_items``
            leave anything out.
    """

    def __init__(self, config):
        for key in ("MAX_ITEM_LIST_LENGTH", "MAX_ITEM_LIST_LENGTH_TEST"):
            length = config[key]
            if length is not None and (not isinstance(length, int) or length < 1):
                raise ConfigError(f"{key}: {length!r} is not a number of items, at least 1")
        self.rows, self.timed = config.spec.rows, False
        self.numbered = config.spec.model.NUMBERED_ROWS
        self.targets, self.labels = None, None
        super().__init__(config)

    # ---- rows ----

    def _change_feat_format(self):
        if isinstance(self.inter_feat, Interaction):
            return  # built before
        Dataset._change_feat_format(self)
        users, items = self.inter_feat[self.uid_field].numpy(), self.inter_feat[self.iid_field].numpy()
        if self.histories_given:
            histories = self.inter_feat[self.item_list_field].numpy()
            lengths = self.inter_feat[self.item_list_length_field].numpy()
            self.sequences = seq.Sequences.from_histories(users, histories, lengths, items, self.timestamps)
        else:
            self._aug_presets()
            self.sequences = seq.Sequences.from_sorted(users, items, self.timestamps, self.user_num)
        # Apart from `inter_feat`, so that a column in `unused_col` can still have its list, as in RecBole.
        self.history_feat = Interaction(dict(self.inter_feat.interaction))

    def build(self):
        """Splits into training, validation and test parts; a part without rows is empty.

        Raises:
            ConfigError: a split that is not one of RecBole's, or rows in another order than time.
            DataError: nobody is left to test, or with ``strict_data`` a user is too short for the split.
        """
        if self.config["eval_args"]["order"] != "TO":
            raise ConfigError(f"eval_args: order '{self.config['eval_args']['order']}': sequences need order TO")
        self._change_feat_format()
        whole = build_split(self)
        split = self._chosen_training(whole)
        self._drop_unused_col()
        self.train_lengths, self.training_positions = split.train_lengths, self._training_positions(split)
        self.whole_training = self._training_positions(whole), whole.train_lengths
        return [self._part("train", split.train), self._part("valid", split.valid), self._part("test", split.test)]

    def _training_positions(self, split: seq.Split) -> np.ndarray:
        """Each user's first item is no target but is training data all the same, unless histories overlap."""
        begin = self.sequences.offsets[:-1]
        return split.train if self.histories_given else _ranges(begin, begin + split.train_lengths)

    def _chosen_training(self, split: seq.Split) -> seq.Split:
        """Training data of some users, or the beginning of it, the same for every model; a larger share of the users
        includes the smaller."""
        asked = {key: self.config[key] for key, everything in TRAINED_ON.items() if self.config[key] != everything}
        if not asked:
            return split
        if self.histories_given and asked.keys() != {"train_user_fraction"}:
            raise ConfigError(f"{', '.join(asked)}: ready-made histories do not say where a user's items begin")
        share, least, first = (self.config[key] for key in TRAINED_ON)
        drawn = np.random.default_rng(self.config["seed"]).random(self.user_num) < share
        kept = drawn[self.sequences.users] & (split.train_lengths >= (least or 0))
        first = first or self.sequences.lengths.max()
        owner = self.sequences.of(split.train)
        train = split.train[kept[owner] & (split.train - self.sequences.offsets[owner] < first)]
        if len(train) == 0:
            keys = ", ".join(f"{key}: {value}" for key, value in asked.items())
            raise ConfigError(f"{keys} leaves nobody of {self.user_num - 1} users to train on")
        self.logger.info(f"{', '.join(asked)}: {len(train)} of {len(split.train)} training targets are kept")
        return replace(split, train=train, train_lengths=np.where(kept, np.minimum(split.train_lengths, first), 0))

    def _part(self, phase, targets):
        part = copy.copy(self)
        if phase == "train" and self.rows == "window":
            part.windows = self._cut_windows()
        elif self.rows == "last":
            part.rows = "prefix"
            targets = self._last_of_users(targets) if phase == "train" else targets
        elif self.rows == "window":
            part.rows, part.timed = "prefix", True
            part.max_item_list_len = self.config["MAX_ITEM_LIST_LENGTH_TEST"] or self.max_item_list_len
        part.numbered = self.numbered and phase == "train"
        if phase != "train":
            part.held_out, part.held_out_offsets = targets, self._rows_of(targets)
            targets = targets[part.held_out_offsets[:-1]]
        part.targets = self.training_positions if phase == "train" and part.rows != "prefix" else targets
        # Ready-made histories: a row stands where its target's sequence does.
        rows = self.sequences.of(part.targets) if self.histories_given else part.targets
        part.inter_feat = take(self.inter_feat, torch.from_numpy(rows))
        return part

    def _rows_of(self, targets):
        """(R + 1,) which of the targets to evaluate begin a row: all, or the first of each user."""
        if not targets_together(self.config):
            return np.arange(len(targets) + 1)
        if self.histories_given:
            raise ConfigError(
                "eval_targets: ready-made histories of benchmark_filename bring a row for each target; leave out "
                "'together', or give files of interactions"
            )
        return np.append(np.unique(self.sequences.of(targets), return_index=True)[1], len(targets))

    def _last_of_users(self, targets):
        """The latest target of each user, of whom ready-made histories have several sequences."""
        users = self.sequences.users[self.sequences.of(targets)]
        order = np.lexsort((self.sequences.timestamps[targets], users))
        is_last = np.append(np.diff(users[order]) > 0, True)
        self.logger.info(f"the last of each user: {is_last.sum()} of {len(targets)} training targets are kept")
        return np.sort(targets[order[is_last]])

    def _cut_windows(self):
        chunk, overlap = self.config["data_split"] is not False, 0 if "chunks" in referenced(self.config) else 1
        size, lengths = self.max_item_list_len + 1, self.train_lengths
        windows = seq.windows(self.sequences.offsets[:-1], lengths, size=size, chunk=chunk, overlap=overlap)
        if not (chunk and overlap):  # windows have nothing in common, and may leave something out
            held, whole = int((windows[:, 1] - windows[:, 0]).sum()), int(lengths.sum())
            self.logger.info(f"windows of at most {size} hold {held} of {whole} training interactions")
        return windows

    def __len__(self):
        return len(self.windows) if self._has_windows else len(self.inter_feat)

    @property
    def _has_windows(self):
        return self.rows == "window" and self.targets is not None

    def __getitem__(self, index, join=True):
        if self._has_windows:
            return self._with_numbers(self.window_rows(index), index)
        if self.rows != "prefix" or self.targets is None:
            rows = take(self.inter_feat, as_index(index, len(self.inter_feat)))
        elif self.histories_given:
            rows = self.given_rows(index)
        else:
            rows = self.prefix_rows(index)
        rows = self._with_numbers(rows, index)
        return self.join(rows) if join else rows

    def _with_numbers(self, rows, index) -> Interaction:
        if self.numbered and self.targets is not None:
            rows.update(Interaction({ROW_NUMBER: as_index(index, len(self))}))
        return rows

    def prefix_rows(self, index) -> Interaction:
        """A target and the items before it, at most ``MAX_ITEM_LIST_LENGTH``, padded on the right with 0."""
        index = as_index(index, len(self.targets))
        targets = torch.from_numpy(self.targets)[index]
        users = torch.from_numpy(self.sequences.of(targets.numpy()))
        begin = torch.maximum(torch.from_numpy(self.sequences.offsets)[users], targets - self.max_item_list_len)
        positions, real = padded_positions(begin, targets, self.max_item_list_len)
        rows = dict(take(self.inter_feat, index).interaction)
        rows[self.item_list_length_field] = targets - begin
        for field, values in self.history_feat.interaction.items():
            list_field = getattr(self, f"{field}_list_field", None)
            if list_field and list_field not in self._unused:
                rows[list_field] = gather(values, positions, real)
        if self.timed:
            times = torch.from_numpy(self.sequences.timestamps)
            rows |= {**self._events(positions, real), EVENT_TIME: times[targets]}
        return Interaction(rows)

    def given_rows(self, index) -> Interaction:
        """Rows as the files of ``benchmark_filename`` hold them, of longer histories the last items."""
        index = as_index(index, len(self.inter_feat))
        rows = take(self.inter_feat, index)
        lengths, longest = rows[self.item_list_length_field], rows[self.item_list_field].shape[1]
        if self.timed:  # such files tell the time of the target only
            times = torch.from_numpy(self.sequences.timestamps[self.targets])[index]
            real = torch.arange(longest) < lengths[:, None]
            rows.update(Interaction({EVENT_TIMES: times[:, None] * real, EVENT_TIME: times}))
        if longest <= self.max_item_list_len:
            return rows
        begin = (lengths - self.max_item_list_len).clamp(min=0)
        positions, real = padded_positions(begin, lengths, self.max_item_list_len)
        rows[self.item_list_length_field] = lengths - begin
        for field, values in rows.interaction.items():
            if (field.endswith(self.config["LIST_SUFFIX"]) or field == EVENT_TIMES) and values.shape[1:2] == (longest,):
                rows[field] = values[torch.arange(len(values))[:, None], positions] * _over(real, values[0])
        return rows

    @property
    def _unused(self):
        return (self.config["unused_col"] or {}).get("inter") or ()

    def window_rows(self, index) -> Interaction:
        """(B, S + 1) items and times of a chunk of a user's training data, padded on the right with 0; its length."""
        bounds = torch.from_numpy(self.windows)[as_index(index, len(self.windows))]
        begin, end = bounds[:, 0], bounds[:, 1]
        positions, real = padded_positions(begin, end, self.max_item_list_len + 1)
        users = torch.from_numpy(self.sequences.users[self.sequences.of(begin.numpy())])
        items = gather(torch.from_numpy(self.sequences.items), positions, real)
        return Interaction(
            {
                self.uid_field: users,
                self.item_list_field: items,
                self.item_list_length_field: end - begin,
                **self._events(positions, real),
            }
        )

    def latest_sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """Users with interactions, and the number of each one's sequence: of ready-made histories that with the latest
        target."""
        filled = np.flatnonzero(self.sequences.lengths)
        ends = self.sequences.timestamps[self.sequences.offsets[1:][filled] - 1]
        ordered = filled[np.lexsort((ends, self.sequences.users[filled]))]
        users = self.sequences.users[ordered]
        is_last = np.append(users[1:] != users[:-1], True)
        return users[is_last], ordered[is_last]

    def latest_rows(self, sequences: np.ndarray) -> Interaction:
        """Rows of users after all they had, for the item that is not in the data yet: no item (id 0), and the last
        items of each sequence as history, at most as many as an evaluation reads.

        Where a model looks at the time of the request, it is that of the last interaction in the data, of anybody.
        """
        width = self.config["MAX_ITEM_LIST_LENGTH_TEST"] or self.max_item_list_len
        positions, real = self._latest_positions(sequences, width)
        now = torch.full((len(sequences),), self.sequences.timestamps.max(), dtype=torch.float64)
        return Interaction(
            {
                self.uid_field: torch.from_numpy(self.sequences.users[sequences]),
                self.iid_field: torch.zeros(len(sequences), dtype=torch.long),
                self.item_list_field: gather(torch.from_numpy(self.sequences.items), positions, real),
                self.item_list_length_field: real.sum(1),
                **self._events(positions, real),
                EVENT_TIME: now,
            }
        )

    def _latest_positions(self, sequences, width):
        """(B, width) flat positions of the last events of each sequence, and which of them are real."""
        begin, end = (torch.from_numpy(self.sequences.offsets[sequences + side]) for side in (0, 1))
        return padded_positions(torch.maximum(begin, end - width), end, width)

    def _events(self, positions, real):
        """Times, and actions where there are any, at padded flat positions."""
        events = {EVENT_TIMES: gather(torch.from_numpy(self.sequences.timestamps), positions, real)}
        if self.actions is not None:
            events[EVENT_ACTIONS] = gather(torch.from_numpy(self.actions), positions, real)
        return events

    def positives(self, index) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers and items of all targets of some rows to evaluate."""
        begin, end = (self.held_out_offsets[np.asarray(index) + side] for side in (0, 1))
        rows = np.repeat(np.arange(len(begin)), end - begin)
        return torch.from_numpy(rows), torch.from_numpy(self.sequences.items[self.held_out[_ranges(begin, end)]])

    def histories(self, index) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers and items of everything before each row's target, the first of several, not cut to
        ``MAX_ITEM_LIST_LENGTH``."""
        targets = self.targets[np.asarray(index)]
        begin = self.sequences.offsets[self.sequences.of(targets)]
        rows = np.repeat(np.arange(len(targets)), targets - begin)
        return torch.from_numpy(rows), torch.from_numpy(self.sequences.items[_ranges(begin, targets)])

    def longest_history(self) -> int:
        """Items in the longest of ``histories``, repetitions counted."""
        return int((self.targets - self.sequences.offsets[self.sequences.of(self.targets)]).max())

    # ---- what RecBole asks of a data set ----

    def join(self, df):
        """RecBole's; where users alone are asked for, as ``full_sort_topk`` does, the first row to evaluate of each."""
        if list(df.interaction) == [self.uid_field]:
            df = self.__getitem__(self.first_rows(df[self.uid_field].numpy()), join=False)
        return super().join(df)

    def first_rows(self, users) -> np.ndarray:
        """(U,) number of the first row of each of these users.

        Raises:
            DataError: a user has none in this part.
        """
        known, first = np.unique(self.inter_feat[self.uid_field].numpy(), return_index=True)
        if missing := sorted(set(np.asarray(users).tolist()) - set(known.tolist())):
            raise DataError(f"user {missing[0]} (internal id) has no row in this part of '{self.dataset_name}'")
        return first[np.searchsorted(known, users)]

    def inter_matrix(self, form="coo", value_field=None):
        """(users, items) sparse matrix of the training interactions."""
        if self.histories_given or self.targets is None:
            rows = self.inter_feat
        else:
            rows = take(self.history_feat, self.training_positions)
        return self._create_sparse_matrix(rows, self.uid_field, self.iid_field, form, value_field)

    def training_counts(self) -> np.ndarray:
        """(n_items,) how often each item occurs in the training interactions."""
        return np.bincount(self.sequences.items[self.training_positions], minlength=self.item_num)

    def whole_counts(self) -> np.ndarray:
        """The same before ``TRAINED_ON`` leaves anything out, so that rows of one table agree on it."""
        return np.bincount(self.sequences.items[self.whole_training[0]], minlength=self.item_num)

    def statistics(self) -> dict[str, float]:
        """Users, items and interactions after filtering (padding not counted), and the mean length."""
        lengths = self.sequences.lengths[self.sequences.lengths > 0]
        return {
            "users": len(np.unique(self.sequences.users[self.sequences.lengths > 0])),
            "items": self.item_num - 1,
            "interactions": len(self.timestamps),
            "mean_length": float(lengths.mean()),
        }


def take(feat: Interaction, index) -> Interaction:
    """Rows of a table."""
    return Interaction({field: values[index] for field, values in feat.interaction.items()})


def as_index(index, size) -> torch.Tensor:
    """Whatever RecBole indexes with (number, list, slice, array, tensor) as a tensor of row numbers."""
    if isinstance(index, slice):
        return torch.arange(size)[index]
    index = torch.as_tensor(index)
    return torch.nonzero(index)[:, 0] if index.dtype == torch.bool else index.long().reshape(-1)


def padded_positions(begin, end, width):
    """(B, width) flat positions begin, begin + 1, ... and which of them are before end."""
    positions = begin[:, None] + torch.arange(width)
    real = positions < end[:, None]
    return torch.where(real, positions, 0), real


def gather(values, positions, real):
    """(B, width, ...) values at flat positions, 0 where nothing is real."""
    rows = values.index_select(0, positions.reshape(-1)).view(*positions.shape, *values.shape[1:])
    return rows.masked_fill_(~_over(real, values), 0)


def _over(real, values):
    """A (B, width) mask shaped to multiply rows of (N, ...) values."""
    return real.view(*real.shape, *[1] * (values.dim() - 1))


def _ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """begin[0]..end[0]-1, begin[1]..end[1]-1, ... in one array."""
    lengths = end - begin
    total = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(begin - total[:-1], lengths) + np.arange(total[-1])
