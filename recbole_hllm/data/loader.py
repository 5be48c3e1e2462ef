"""Loaders: the training rows of a model, and one evaluation loader for all that rank."""

import re
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.transform import MaskItemSequence
from torch import Tensor

from recbole_hllm.config.keys.recbole import SizeKeys
from recbole_hllm.config.keys.run import RunKeys, data_seed
from recbole_hllm.data.batches import BatchLoader
from recbole_hllm.data.candidates import draw_candidates
from recbole_hllm.data.negatives import check_drawable
from recbole_hllm.data.protocol import referenced
from recbole_hllm.data.rows.labelled import LabelledEvalLoader
from recbole_hllm.data.samplers import ItemSampler, OwnItems
from recbole_hllm.errors import ConfigError
from recbole_hllm.evaluation.metrics import check_lists, check_topk, longest_list

# Most scores of one evaluation batch (rows x items): 512 MB of float32.
_SCORES_PER_BATCH = 2**27
CANDIDATES = "candidate_items"


def data_preparation(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Splits a data set and makes its loaders.

    Returns:
        (train, valid, test) loaders; valid or test is None when the split has no such part.
    """
    settings = RunKeys.of(config)
    train, valid, test = dataset.build()
    train_loader = train.rows.loader(config, train, _train_sampler(config, train), shuffle=settings.shuffle)
    loaders = train_loader, _eval_loader(config, "valid", train, valid), _eval_loader(config, "test", train, test)
    for loader in filter(None, loaders):
        if isinstance(loader.transform, MaskItemSequence):
            loader.transform = MaskedHistories(config)
    return loaders


class MaskedHistories(MaskItemSequence):
    """RecBole's masked histories, which looks for ever for an item that is not in a history of all items there are: it
    is the padding item 0 here."""

    def _neg_sample(self, item_set: Any, n_items: Any) -> Any:
        return super()._neg_sample(item_set, n_items) if len({*item_set} - {0}) < n_items - 1 else 0


def check_sizes(config: Any, train: Any, *evaluated: Any) -> None:
    """Whether there are as many items as ``topk`` and the models that rerank candidates ask for.

    Args:
        config: the run's Config.
        train: the training loader.
        evaluated: loaders of validation and test, None where there is none.

    Raises:
        ConfigError: there are fewer in the catalogue, or, where metrics are of the listed items, beside those that are
            masked or not drawn.
    """
    n_items = train._dataset.item_num - 1
    sizes = SizeKeys.of(config)
    numbers = re.findall(r"\d+", str(sizes.reranker_CAN_NUM)) if sizes.n_facet_reranker else []
    most = max(map(int, numbers), default=0)
    if most > n_items:
        raise ConfigError(
            f"reranker_CAN_NUM: {most} candidates to rerank are more than the {n_items} items of the catalogue; choose "
            f"at most {n_items}"
        )
    ranked = [loader for loader in evaluated if isinstance(loader, EvalLoader)]
    if ranked:
        check_topk(config, n_items)
        check_lists(config, *min(loader.fewest_candidates(config) for loader in ranked))


def _train_sampler(config: Any, train: Any) -> Any:
    """Draws among training rows only, so that no validation or test item is more likely to be drawn."""
    settings = RunKeys.of(config)
    arguments = settings.train_neg_sample_args
    assert arguments is not None, "RecBole writes it out"
    if arguments["distribution"] == "none":
        if not config.spec.model.DRAWS_NEGATIVES:
            return None
        if not train.rows.draws_of_its_own(config):
            return None
        arguments = {"distribution": "uniform", "alpha": 1.0}
    popular = arguments["distribution"] == "popularity"
    counts = train.rows.item_counts() if popular else None
    check_drawable(train, counts)
    weights = None if counts is None else np.where(counts > 0, counts / counts.sum(), 0) ** arguments["alpha"]
    own = None
    if not train.rows.reads_history:
        own = OwnItems.at(train.targets, train.sequences, train.user_num, train.item_num)
    return ItemSampler(train.item_num, settings.seed, weights, own)


def _eval_loader(config: Any, phase: str, train: Any, part: Any) -> Any:
    if len(part) == 0:
        return None
    if part.rows.labelled:
        return LabelledEvalLoader(config, part)
    return EvalLoader(config, part, phase, train.whole_counts)


class EvalLoader(FullSortEvalDataLoader, BatchLoader):
    """One row per target, for sequential and general models alike, against the whole catalogue or fixed candidates.

    With ``eval_targets: together`` a row has all targets of a user. Candidates of ``uniN`` and ``popN`` are drawn once
    from the seed, N for a row, without replacement and without the user's own items; they are the same for every model
    and pass.

    Attributes:
        candidates: (R, N) int64, or None for the whole catalogue.
    """

    def __init__(self, config: Any, dataset: Any, phase: str, counts: Any) -> None:
        self.uid_field, self.iid_field = dataset.uid_field, dataset.iid_field
        self.phase = phase
        self.settings = RunKeys.of(config)
        self.mask_history = bool(self.settings.mask_history)  # of both kinds, too: who ranks knows which it wants
        self.target_masked = self.mask_history and "mask_target" in referenced(self.settings.reference)
        self.sample_size = len(dataset)
        self.candidates = self._draw(config, dataset, counts)
        BatchLoader.__init__(self, config, dataset, sampler=None, shuffle=False)
        # For RecBole's full_sort_topk alone: True are rows as they are, with nothing masked; False one row of each user
        # without what `uid2history_item` holds.
        self.is_sequential = dataset.rows.reads_history and not self.mask_history

    def _init_batch_size_and_step(self) -> None:
        self.step = max(1, min(self.settings.eval_batch_size, _SCORES_PER_BATCH // self._dataset.item_num))
        self.set_batch_size(self.step)

    def _draw(self, config: Any, dataset: Any, counts: Any) -> Any:
        arguments = config[f"{self.phase}_neg_sample_args"]
        if arguments["sample_num"] == "none":
            if arguments["distribution"] == "none":
                raise ConfigError("eval_args: mode 'labeled' is for models trained on labels; use full, uniN or popN")
            return None
        sequences = dataset.sequences
        return draw_candidates(
            sequences.of(np.asarray(dataset.targets)),
            sequences.offsets,
            sequences.items,
            dataset.item_num,
            arguments["sample_num"],
            seed=data_seed(self.settings),
            weights=counts() if arguments["distribution"] == "popularity" else None,
        )

    def fewest_candidates(self, config: Any) -> tuple[int, str]:
        """How many candidates the row with fewest has, and why there are no more; where lists are full with
        ``mask_history`` by a rough count, that count."""
        dataset, every = self._dataset, np.arange(self.sample_size)
        n_items = dataset.item_num - 1
        if self.candidates is not None:
            own = dataset.fewest_targets()
            mode = self.settings.eval_args["mode"][self.phase]
            return self.candidates.shape[1] + own, f"by the mode {mode} of eval_args"
        if not self.mask_history:
            return n_items, "the whole catalogue"
        most = dataset.longest_history()
        if n_items - most < longest_list(config):
            rows, items = self._masked(every, *dataset.positives(every))
            different = torch.unique(rows * dataset.item_num + items) // dataset.item_num
            most = int(torch.bincount(different, minlength=1).max())
        return n_items - most, "the others are masked (mask_history)"

    @property
    def uid2history_item(self) -> "MaskedItems":
        """Items not to recommend to each user, by internal id."""
        return MaskedItems(self._dataset, self.mask_history)

    def collate_fn(self, index: Any) -> Any:
        """A batch as RecBole's trainer expects it: rows, items to mask, row and item of each target."""
        index = np.asarray(index)
        rows = self.transform(self._dataset, self._dataset[index])
        row_of, targets = self._dataset.positives(index)
        if self.candidates is not None:
            own = _padded(row_of, targets, rows[self.iid_field])
            rows[CANDIDATES] = torch.cat([own, torch.from_numpy(self.candidates[index])], dim=1)
        return rows, self._masked(index, row_of, targets), row_of, targets

    def _masked(self, index: Any, row_of: Any, targets: Any) -> Any:
        if not self.mask_history:
            return None
        rows, items = self._dataset.histories(index)
        if not self.target_masked:
            n_items = self._dataset.item_num
            other = ~torch.isin(rows * n_items + items, row_of * n_items + targets)
            rows, items = rows[other], items[other]
        return rows, items


class MaskedItems:
    """What users had before their first target, looked up where somebody asks; nothing without ``mask_history``.

    Args:
        dataset: a part to evaluate of a SequenceDataset.
        mask_history: value of the key.
    """

    def __init__(self, dataset: Any, mask_history: bool) -> None:
        self.dataset, self.mask_history = dataset, mask_history

    def __getitem__(self, users: Any) -> list[torch.Tensor]:
        """Items of each of some users, (N,) each."""
        if not self.mask_history:
            return [torch.empty(0, dtype=torch.long)] * len(users)
        rows, items = self.dataset.histories(self.dataset.first_rows([int(user) for user in users]))
        return list(items.split(torch.bincount(rows, minlength=len(users)).tolist()))


def _padded(row_of: Any, items: Any, first: Any) -> Tensor:
    """(B, most of a row) items of each row; rows with fewer repeat their first one."""
    counts = torch.bincount(row_of, minlength=len(first))
    table = first[:, None].repeat(1, int(counts.max()))
    table[row_of, torch.arange(len(items)) - (counts.cumsum(0) - counts)[row_of]] = items
    return table
