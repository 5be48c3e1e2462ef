"""SequenceDataset: RecBole's SequentialDataset over flat arrays, the same users, items and targets for every model."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from torch import Tensor

from recbole_hllm.config.keys.next_item import HistoryKeys
from recbole_hllm.config.keys.run import RunKeys, data_seed
from recbole_hllm.data.files.atomic import AtomicDataset
from recbole_hllm.data.protocol import TRAINED_ON, build_split
from recbole_hllm.data.rows import sequences as seq
from recbole_hllm.data.rows.columns import EVENT_ACTIONS, EVENT_TIME, EVENT_TIMES, WHOLE_HISTORY
from recbole_hllm.data.rows.flat import Padded
from recbole_hllm.data.rows.lazy_interaction import Column, LazyInteraction, everything
from recbole_hllm.data.rows.part import EvaluationPart, Part
from recbole_hllm.data.rows.positions import Owners, Positions, narrow
from recbole_hllm.data.rows.sample import sampled
from recbole_hllm.errors import ConfigError


def create_dataset(config: Any) -> "SequenceDataset":
    """Reads the data set a config names; nothing is unpickled or downloaded."""
    return config.spec.rows.data_set(config)


class SequenceDataset(AtomicDataset):
    """Users' histories in time order, from ``<name>.inter``.

    Ids, interactions and targets depend on ``<name>.inter`` and the filters only, never on the feature columns a
    model loads, so that all models of a table rank the same candidates for the same targets. It is the whole; its
    parts (``build``) have the rows that the model trains on and is evaluated on.

    Attributes:
        inter_feat: after ``build`` a LazyInteraction, whose tensors are made when asked for.
        history_feat: the same columns, those in ``unused_col`` too.
        sequences: all users' items, times and offsets, full-precision time order, ties in file order.
        labels: (T,) 0/1 label of each interaction; None where they have none.
        training_positions: flat positions of the training interactions, first items included, after ``build``.
        train_lengths: (U,) how many first interactions of each user are training data, after ``build``.
        whole_training: both of these before ``train_user_fraction``, ``train_min_items`` and ``train_first_items``
            leave anything out.
        settings: values of the keys that all such data have.
    """

    Keys: ClassVar[type[RunKeys]] = RunKeys

    def __init__(self, config: Any) -> None:
        self.settings = self.Keys.of(config)
        self.labels: Any = None
        super().__init__(config)

    # ---- split ----

    def _change_feat_format(self) -> None:
        if isinstance(self.inter_feat, Interaction):
            return  # built before
        for name in self.feat_name_list:
            convert = self._lazy_columns if name == "inter_feat" else self._dataframe_to_interaction
            setattr(self, name, convert(getattr(self, name)))
        users, items = (self.inter_feat.kept[field].values for field in (self.uid_field, self.iid_field))
        if self.histories_given:
            histories = self.inter_feat.kept[self.item_list_field].values
            lengths = self.inter_feat.kept[self.item_list_length_field].values
            self.sequences = seq.Sequences.from_histories(users, histories, lengths, items, self.timestamps)
        else:
            self._aug_presets()
            lengths = np.pad(self.lengths, (0, self.user_num - len(self.lengths)))
            del self.lengths  # the sequences know them
            self.sequences = seq.Sequences.from_lengths(lengths, items, self.timestamps)
            # Users need not be read: the rows of each are neighbours.
            columns = {**self.inter_feat.kept, self.uid_field: Column(Owners(self.sequences.offsets), np.int64)}
            self.inter_feat = LazyInteraction(columns, everything(len(self.timestamps)))
        # Apart from `inter_feat`, so that a column in `unused_col` can still have its list, as in RecBole.
        self.history_feat = self.inter_feat.of(self.inter_feat.interaction.rows)

    def _lazy_columns(self, frame: Any) -> LazyInteraction:
        """The columns of a DataFrame without copies of those of ids and of plain numbers."""
        plain: dict[FeatureType, Any] = {FeatureType.TOKEN: np.int64, FeatureType.FLOAT: np.float32}
        columns = {}
        for name in frame:
            kind, values = self.field2type[name], frame[name].to_numpy()
            if kind in plain and values.dtype != object:
                columns[name] = Column(narrow(values) if kind == FeatureType.TOKEN else values, plain[kind])
            else:
                tensor = self._dataframe_to_interaction(frame[[name]])[name].numpy()
                columns[name] = Column(tensor, tensor.dtype.type)
        return LazyInteraction(columns, everything(len(frame)))

    def build(self) -> list[Part]:
        """Splits into training, validation and test parts; a part without rows is empty.

        Raises:
            ConfigError: a split that is not one of RecBole's, or rows in another order than time.
            DataError: nobody is left to test, or with ``strict_data`` a user is too short for the split.
        """
        if self.settings.eval_args["order"] != "TO":
            raise ConfigError(f"eval_args: order '{self.settings.eval_args['order']}': sequences need order TO")
        self._change_feat_format()
        whole = build_split(self)
        split = self._chosen_training(whole)
        self._drop_unused_col()
        self.whole_training = self._training_positions(whole), whole.train_lengths
        self.training_positions = self.whole_training[0] if split is whole else self._training_positions(split)
        self.train_lengths = split.train_lengths
        return self._parts(split.train, self._sampled(split.valid, "validation"), self._sampled(split.test, "the test"))

    def _sampled(self, held_out: Positions, phase: str) -> Positions:
        """The targets to evaluate of the users that ``eval_users`` leaves."""
        number = self.settings.eval_users
        if number is None:
            return held_out
        counts = held_out.counts
        users = self.sequences.users[counts > 0]
        chosen, total = sampled(users, number, data_seed(self.settings)), np.count_nonzero(np.bincount(users))
        self.logger.info(f"eval_users: {min(number, total):,} of {total:,} users are evaluated in {phase}")
        kept = np.zeros_like(counts)
        kept[counts > 0] = np.where(chosen, counts[counts > 0], 0)
        return held_out.most(kept)

    def _training_positions(self, split: seq.Split) -> Positions:
        """Each user's first item is no target but is training data all the same, unless histories overlap."""
        return split.train if self.histories_given else Positions(self.sequences.offsets[:-1], split.train_lengths)

    def _chosen_training(self, split: seq.Split) -> seq.Split:
        """Training data of some users, or the beginning of it, the same for every model; a larger share of the users
        includes the smaller."""
        wanted = {key: getattr(self.settings, key) for key in TRAINED_ON}
        asked = {key: value for key, value in wanted.items() if value != TRAINED_ON[key]}
        if not asked:
            return split
        if self.histories_given and asked.keys() != {"train_user_fraction"}:
            raise ConfigError(f"{', '.join(asked)}: ready-made histories do not say where a user's items begin")
        share, least, first = wanted.values()
        drawn = np.random.default_rng(self.settings.seed).random(self.user_num) < share
        kept = drawn[self.sequences.users] & (split.train_lengths >= (least or 0))
        first = first or int(self.sequences.lengths.max())
        skipped = split.train.begin - self.sequences.offsets[:-1]
        train = split.train.most(np.where(kept, np.maximum(first - skipped, 0), 0))
        if len(train) == 0:
            keys = ", ".join(f"{key}: {value}" for key, value in asked.items())
            raise ConfigError(f"{keys} leaves nobody of {self.user_num - 1} users to train on")
        self.logger.info(f"{', '.join(asked)}: {len(train)} of {len(split.train)} training targets are kept")
        return replace(split, train=train, train_lengths=np.where(kept, np.minimum(split.train_lengths, first), 0))

    def _parts(self, train: Positions, *evaluated: Positions) -> list[Part]:
        """Parts of the training targets, and of those of validation and test."""
        spec = self.config.spec
        training = Part(self, spec.rows.of_training(self, train), spec.model.NUMBERED_ROWS)
        return [training, *map(self._part_to_evaluate, evaluated)]

    def _part_to_evaluate(self, held_out: Positions) -> Any:
        together = self.settings.eval_targets == "together"
        if together and self.histories_given:
            raise ConfigError(
                "eval_targets: ready-made histories of benchmark_filename bring a row for each target; leave out "
                "'together', or give files of interactions"
            )
        rows = self.config.spec.rows.of_evaluation(self, held_out.most(1) if together else held_out)
        return EvaluationPart(self, rows, held_out, together)

    def table_at(self, positions: Positions) -> LazyInteraction:
        """``inter_feat`` at flat positions; of ready-made histories the row of the position's sequence."""
        return self.inter_feat.of(np.flatnonzero(positions.counts) if self.histories_given else positions)

    # ---- what users had ----

    def latest_sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """Users with interactions, and the number of each one's sequence: of ready-made histories that with the latest
        target."""
        filled = np.flatnonzero(self.sequences.lengths)
        if not self.histories_given:
            return self.sequences.users[filled], filled
        ends = self.sequences.timestamps[self.sequences.offsets[1:][filled] - 1]
        ordered = filled[np.lexsort((ends, self.sequences.users[filled]))]
        users = self.sequences.users[ordered]
        is_last = np.append(users[1:] != users[:-1], True)
        return users[is_last], ordered[is_last]

    def latest_rows(self, sequences: np.ndarray, whole: bool = False) -> Interaction:
        """Rows of users after all they had, for the item that is not in the data yet: no item (id 0), and the last
        items of each sequence as history, at most as many as an evaluation reads.

        Where a model looks at the time of the request, it is that of the last interaction in the data, of anybody.
        With ``whole`` all items of each sequence stand beside, as wide as the longest.
        """
        width = HistoryKeys.of(self.config).MAX_ITEM_LIST_LENGTH_TEST or self.max_item_list_len
        events = self._latest_events(sequences, width)
        ends = self.sequences.offsets[sequences + 1]
        now = torch.full((len(sequences),), float(self.sequences.timestamps.max()), dtype=torch.float64)
        return Interaction(
            {
                self.uid_field: torch.from_numpy(self.sequences.users_of(sequences)),
                self.iid_field: torch.zeros(len(sequences), dtype=torch.long),
                self.item_list_field: events.of(self.sequences.items, np.int64),
                self.item_list_length_field: torch.from_numpy(events.lengths),
                **self.events_at(events),
                EVENT_TIME: now,
                **({WHOLE_HISTORY: self.whole_histories(sequences, ends)} if whole else {}),
            }
        )

    def _latest_events(self, sequences: np.ndarray, width: int) -> Padded:
        """(B, width) the last events of each sequence."""
        begin, end = (self.sequences.offsets[sequences + side] for side in (0, 1))
        return Padded(np.maximum(begin, end - width), end, width)

    def events_at(self, events: Padded) -> dict[str, Tensor]:
        """Times, and actions where there are any, of the events of some rows."""
        columns = {EVENT_TIMES: events.of(self.sequences.timestamps, np.float64)}
        if self.actions is not None:
            columns[EVENT_ACTIONS] = events.of(self.actions, np.int64)
        return columns

    def whole_histories(self, sequences: np.ndarray, ends: np.ndarray) -> Tensor:
        """(B, W) all items of some sequences before these flat positions, (B,) each, padded on the right with 0; W is
        the length of the longest."""
        begin = self.sequences.offsets[sequences]
        width = int((ends - begin).max(initial=0))
        return Padded(begin, ends, width).of(self.sequences.items, np.int64)

    def training_counts(self) -> np.ndarray:
        """(n_items,) how often each item occurs in the training interactions."""
        return self.training_positions.count(self.sequences.items, self.item_num)

    def whole_counts(self) -> np.ndarray:
        """The same before ``TRAINED_ON`` leaves anything out, so that rows of one table agree on it."""
        return self.whole_training[0].count(self.sequences.items, self.item_num)

    def statistics(self) -> dict[str, float]:
        """Users, items and interactions after filtering (padding not counted), and the mean length."""
        filled = self.sequences.lengths > 0
        return {
            "users": len(np.unique(self.sequences.users[filled])) if self.histories_given else int(filled.sum()),
            "items": self.item_num - 1,
            "interactions": len(self.timestamps),
            "mean_length": float(self.sequences.lengths[filled].mean()),
        }
