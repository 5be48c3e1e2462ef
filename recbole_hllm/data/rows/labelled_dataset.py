"""LabelledDataset: a 0/1 label for every interaction, and which earlier events can be in its history."""

from typing import Any, ClassVar

import numpy as np
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_hllm.config.keys.run import LabelledKeys
from recbole_hllm.data.files.float_columns import check_loaded
from recbole_hllm.data.files.table import Table
from recbole_hllm.data.labels import chosen_ratios, read_threshold
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.flat import Padded, first_after
from recbole_hllm.data.rows.positions import Positions, narrow
from recbole_hllm.data.rows.sequences import Sequences
from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.evaluation.metrics import of_users


class LabelledDataset(SequenceDataset):
    """Interactions with labels, split in time order: the same (user, item, label) rows for every model.

    The label is the column ``LABEL_FIELD``, or whether the column named in ``threshold`` reaches its number. A row's
    history are the user's earlier events, at most ``MAX_ITEM_LIST_LENGTH`` and perhaps none; events at the row's own
    time are not in it, whatever their order in the file. With ``history_filter: positive`` events of label 0 are
    left out. Context-aware models read no history and get none.

    Attributes:
        labels: (T,) float32 of every interaction, after ``build``.
        events: (N,) flat positions that can be in a history.
        history_bounds: (T, 2) begin and end of each interaction's history in ``events``.

    Raises:
        ConfigError: no label and no threshold.
        DataError: a label that is not 0 or 1, or one class only.
    """

    Keys: ClassVar[type[LabelledKeys]] = LabelledKeys
    settings: LabelledKeys

    def __init__(self, config: Any) -> None:
        if LabelledKeys.of(config).benchmark_filename is not None:
            raise ConfigError("benchmark_filename: labelled rows are split by eval_args, from one .inter file")
        self.label_source, self.least = read_threshold(config)
        super().__init__(config)

    # ---- reading ----

    def _get_load_and_unload_col(self, source: Any) -> tuple[Any, Any]:
        load, unload = super()._get_load_and_unload_col(source)
        if load is not None and source == FeatureSource.INTERACTION:
            load = load | {self.label_source}
        return load, unload

    def _check_columns(self, path: Any, source: Any, header: Any, names: Any) -> None:
        super()._check_columns(path, source, header, names)
        name = self.label_source
        if source != FeatureSource.INTERACTION:
            return
        if name not in header:
            key = "no column of labels: LABEL_FIELD" if self.least is None else "threshold"
            raise ConfigError(
                f"{key}: {path} has no column '{name}' (there are: {', '.join(header)}); name a column of labels 0 and "
                "1 in LABEL_FIELD, or a column of numbers and the least that counts as 1 in threshold: {rating: 4}"
            )
        if name not in names:
            raise ConfigError(f"unload_col: column '{name}' of {path} holds the labels and must be loaded")
        if header[name] != FeatureType.FLOAT:
            raise DataError(f"{path}, line 1: column '{name}' must be {name}:float, not {name}:{header[name].value}")

    def _check_interactions(self, path: Any, table: Table) -> None:
        super()._check_interactions(path, table)
        values = table.columns[self.label_source]
        bad = ~(np.isfinite(values) if self.least is not None else np.isin(values, (0, 1)))
        if bad.any():
            wanted = "a number" if self.least is not None else "0 or 1; set threshold to make labels of other numbers"
            row = int(np.argmax(bad))
            raise DataError(
                f"{path}, {table.place(row)}, column {self.label_source}: {values[row]} is not {wanted} "
                f"({int(bad.sum())} such line(s))"
            )

    def _checked(self) -> Any:
        return [self.label_source, self.least]

    def _aug_presets(self) -> None:
        """No list columns: a context-aware model would take them for features."""

    def _set_label_by_threshold(self) -> None:
        """Labels are taken here: later RecBole scales every column of numbers."""
        super()._set_label_by_threshold()
        self.labels = self.inter_feat[self.label_field].to_numpy(np.float32)
        _check_classes(self, "", self.labels)

    def _change_feat_format(self) -> None:
        if isinstance(self.inter_feat, Interaction):
            return  # built before
        super()._change_feat_format()
        self.events, self.history_bounds = self._find_histories()
        draws = np.random.default_rng(self.settings.seed).integers(1, max(self.item_num - 1, 2), len(self.labels))
        # One item other than the event's own beside each event: DIEN learns to tell them apart.
        self.other_items = narrow((self.sequences.items - 1 + draws) % (self.item_num - 1) + 1)

    def _find_histories(self) -> tuple[np.ndarray, np.ndarray]:
        sequences, numbers = self.sequences, np.arange(len(self.labels))
        events = numbers if self.settings.history_filter == "all" else np.flatnonzero(self.labels)
        first = np.repeat(sequences.offsets[:-1], sequences.lengths)
        later = np.concatenate([[True], np.diff(sequences.timestamps) != 0]) | (numbers == first)
        own_time = np.maximum.accumulate(np.where(later, numbers, 0))
        end = np.searchsorted(events, own_time)
        begin = np.maximum(np.searchsorted(events, first), end - self.max_item_list_len)
        return narrow(events), np.stack([narrow(begin), narrow(end)], axis=1)

    def _latest_events(self, sequences: np.ndarray, width: int) -> Padded:
        """Those of the events that can be in a history."""
        begin, end = (np.searchsorted(self.events, self.sequences.offsets[sequences + side]) for side in (0, 1))
        return Padded(np.maximum(begin, end - width), end, width).through(self.events)

    # ---- split ----

    def build(self) -> Any:
        """Splits all interactions in time order; those of one moment stay in one part.

        Raises:
            ConfigError: columns of numbers that do not fit the model.
            DataError: a part without rows or with one class only; a ``valid_metric`` of users (GAUC, UAUC, WUAUC)
                where none has both labels in validation.
        """
        check_loaded(self.config.spec.model.__name__, self, self.settings.numerical_features)
        ratios = chosen_ratios(self.settings.eval_args)
        self._change_feat_format()
        self._drop_unused_col()
        bounds = self._calcu_split_ids(len(self.labels), ratios)
        parts = dict(zip(("train", "valid", "test"), split_by_time(self.sequences, bounds), strict=True))
        for phase, words in (("valid", "validation"), ("test", "the test")):
            parts[phase] = self._sampled(parts[phase], words)
        for (phase, positions), ratio in zip(parts.items(), ratios, strict=True):
            if ratio > 0 and len(positions) == 0:
                raise DataError(
                    f"data set '{self.dataset_name}': the split {self.settings.eval_args['split']} leaves the {phase} "
                    f"part empty: {len(self.labels)} interactions, at {len(np.unique(self.timestamps))} different times"
                )
            _check_classes(self, f" {phase} part", positions.pick(self.labels))
        if of_users(self.settings.valid_metric):
            self._check_users_of(parts["valid"])
        self.training_positions = parts["train"]
        self.train_lengths = self.training_positions.counts
        self.whole_training = self.training_positions, self.train_lengths
        return self._parts(*parts.values())

    def _check_users_of(self, positions: Positions) -> None:
        """Metrics of users are of those with rows of both labels; without any no epoch could be chosen."""
        rows, owners = positions.counts, np.repeat(np.arange(len(positions.counts)), positions.counts)
        liked = np.bincount(owners, positions.pick(self.labels), minlength=len(rows))
        if len(positions) and not ((liked > 0) & (liked < rows)).any():
            raise DataError(
                f"valid_metric: {self.settings.valid_metric}: no user of data set '{self.dataset_name}' has rows of "
                f"both labels among the {len(positions)} of validation; take AUC, or more validation rows in eval_args"
            )


def split_by_time(sequences: Sequences, bounds: list[int]) -> list[Positions]:
    """Positions of each part of interactions in time order.

    Args:
        sequences: interactions of all users.
        bounds: how many interactions are before the second and later parts; where that would cut through a moment,
            the nearest number that does not, the larger of two.
    """
    begin, end = sequences.offsets[:-1], sequences.offsets[1:]
    cuts = [begin, *(_cut_at(sequences, bound) for bound in bounds), end]
    return [Positions(first, last - first) for first, last in zip(cuts, cuts[1:], strict=False)]


def _cut_at(sequences: Sequences, bound: int) -> np.ndarray:
    """(U,) where in each sequence the interactions after about so many earliest of all begin."""
    begin, end = sequences.offsets[:-1], sequences.offsets[1:]
    if bound == end[-1]:
        return end
    moment = np.partition(sequences.timestamps, bound)[bound]
    before = first_after(sequences.timestamps, begin, end, moment, itself=True)
    after = first_after(sequences.timestamps, begin, end, moment)
    counts = [int((cut - begin).sum()) for cut in (before, after)]
    return before if bound - counts[0] < counts[1] - bound else after


def _check_classes(dataset: Any, part: Any, labels: Any) -> None:
    """Neither a loss nor AUC makes sense of one class."""
    if len(labels) and labels.min() == labels.max():
        source = dataset.label_source + ("" if dataset.least is None else f" >= {dataset.least}")
        raise DataError(
            f"data set '{dataset.dataset_name}': one class only: all {len(labels)} rows{part and ' of the' + part} "
            f"have the label {labels[0]:g} ({source}); look at threshold, LABEL_FIELD and the split of eval_args"
            + (", or raise eval_users" if dataset.settings.eval_users else "")
        )
