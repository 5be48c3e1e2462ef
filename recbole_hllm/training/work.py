"""What batches of training rows cost: items, tokens, positions and FLOPs, counted from the model's contract."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import nn

from recbole_hllm.config.keys.language_models import CheckpointingKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.batches import Batch
from recbole_hllm.processes import current


@dataclass
class Work:
    """Of a batch, or of several together. Of several processes each has a share, so that their sum counts an item that
    two of them read once.

    Attributes:
        items: places of the batch that hold an item, repetitions counted, padding not.
        distinct_items: of these; of several processes that read no texts, of those of each process.
        item_tokens: real ones, of the texts of distinct items that are read.
        positions: places that what reads histories reads.
        flops: of matrix products, of attention between the tokens of an item, and of scores of items in the loss,
            forward and backward. Attention counts each pair of tokens, also where a causal model looks at half of them.
        tokens_again: computed again in the backward pass to save memory, where that is asked for.
        activations: bytes of those of the Item LLM, of the largest batch; where that is asked for.
    """

    items: float = 0
    distinct_items: float = 0
    item_tokens: float = 0
    positions: float = 0
    flops: float = 0
    tokens_again: float = 0
    activations: float = 0

    def add(self, other: "Work", times: float = 1) -> None:
        """Adds the numbers of another, multiplied; of activations the larger one stays."""
        largest = max(self.activations, other.activations)
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + times * value)
        self.activations = largest


class WorkCounter:
    """Counts what a model does with a batch of training rows; no random number is drawn, nothing computed. Where texts
    are read, several processes tell each other which, and all count the same batch at the same time.

    Args:
        config: the run's Config.
        model: the recommender, on any device, ``meta`` too.
        labelled: whether rows are labelled, so that their candidate is read.
        recomputation: count also what is computed again in the backward pass; without it numbers of ways to save
            memory can be compared.
    """

    def __init__(self, config: Any, model: Any, labelled: bool, recomputation: bool = False) -> None:
        self.settings, self.model, self.labelled = RunKeys.of(config), model, labelled
        self.reading = reading = model.item_reading()
        self.recomputation = recomputation
        checkpointing = recomputation and bool(CheckpointingKeys.of(config).gradient_checkpointing)
        self.texts, self.of_items = None, list[tuple[_Matrices, int]]()
        if reading is not None:
            apart = [*reading.left_out, *(part for part, _ in reading.of_items)]
            self.texts = _Matrices.of(reading.module, checkpointing, apart)
            known = not self.texts.trained
            self.of_items = [(_Matrices.of(part, False, known=known), times) for part, times in reading.of_items]
        parts = (part for part in model.children() if reading is None or part is not reading.module)
        self.others = [_Matrices.of(part, checkpointing) for part in (*parts, *model.modules_beside())]

    def of(self, rows: Interaction) -> Work:
        """The work of a batch."""
        read, beside = _items_of(self.settings, self.labelled, rows)
        positions = self.model.positions_read(rows) if _own_rows(rows) else 0
        if positions is None:
            positions = int(np.count_nonzero(read))
        ids = np.concatenate([read.reshape(-1), beside.reshape(-1)])
        distinct = _distinct(ids)
        flops = sum(part.flops(positions) for part in self.others)
        flops += self.model.scoring_flops(rows) if _own_rows(rows) else 0
        work = Work(int(np.count_nonzero(ids)), len(distinct), 0, positions, flops)
        if self.reading is not None:
            distinct = np.unique(np.concatenate(current().gather_arrays(distinct)))
            work.distinct_items = len(_share(distinct))
            self._add_texts(work, _share(self.reading.tokens[distinct][: self.reading.most]))
        return work

    def _add_texts(self, work: Work, lengths: np.ndarray) -> None:
        """Adds what texts of so many tokens cost."""
        assert self.reading is not None and self.texts is not None
        work.item_tokens = float(lengths.sum())
        if self.recomputation and self.reading.memory is not None:
            work.activations, work.tokens_again = self.reading.memory(lengths.tolist())
        work.flops += self.texts.flops(work.item_tokens, work.tokens_again)
        again = len(lengths) * (work.tokens_again / work.item_tokens if work.item_tokens else 0.0)
        work.flops += sum(times * part.flops(len(lengths), again) for part, times in self.of_items)
        # Queries with keys, and weights with values: 2 FLOPs each for a pair of tokens and a hidden unit.
        squares = float(np.square(lengths, dtype=np.float64).sum())
        attention = 4.0 * self.reading.layers * self.reading.hidden_size * squares
        work.flops += attention * self.texts.passes(work.item_tokens, work.tokens_again)


@dataclass(frozen=True)
class _Matrices:
    """The matrices of a part of a model.

    Attributes:
        weights, trained: how many numbers they have, and how many of these are trained.
        twice: all is computed again in the backward pass.
        first: how many numbers the matrix has whose input has no gradient.
    """

    weights: int
    trained: int
    twice: bool
    first: int = 0

    @classmethod
    def of(
        cls, part: nn.Module, checkpointing: bool, left_out: Iterable[nn.Module] = (), known: bool = False
    ) -> "_Matrices":
        """Those of all layers but embeddings, which are looked up, and what is left out; ``known``: what the first one
        reads has no gradient."""
        without = {layer for one in left_out for layer in one.modules()}
        layers = (layer for layer in part.modules() if not isinstance(layer, nn.Embedding) and layer not in without)
        matrices = [weight for layer in layers for weight in layer.parameters(recurse=False) if weight.dim() > 1]
        trained = sum(weight.numel() for weight in matrices if weight.requires_grad)
        first = matrices[0].numel() if known and trained else 0
        return cls(sum(weight.numel() for weight in matrices), trained, checkpointing and trained > 0, first)

    def flops(self, tokens: float, again: float = 0.0) -> float:
        """Two for each weight and token forward, as many where it is computed again, for the gradient of its input,
        and, if it is trained, for its own."""
        again += tokens * self.twice
        every = self.weights * (1 + (self.trained > 0)) - self.first + self.trained
        return 2.0 * (tokens * every + again * self.weights)

    def passes(self, tokens: float, again: float) -> float:
        """How often what has no weights is computed, a backward pass counting two."""
        return 1 + 2 * (self.trained > 0) + self.twice + (again / tokens if tokens else 0.0)


def _items_of(settings: RunKeys, labelled: bool, rows: Interaction) -> tuple[np.ndarray, np.ndarray]:
    """Items of a batch: those read by the user model, a labelled row's candidate among them, and those beside; of
    negatives that all processes have, this one's share."""
    item = settings.ITEM_ID_FIELD
    history, negatives = item + settings.LIST_SUFFIX, settings.NEG_PREFIX + item
    read = [_ids(rows[history])] if history in rows else []
    if item in rows and (labelled or not read):
        read.append(_ids(rows[item])[:, None])
    beside = _ids(rows[negatives]) if negatives in rows else np.zeros(0, np.int64)
    own = _own_rows(rows)
    together = np.concatenate(read, axis=1) if read else np.zeros((len(rows), 0), np.int64)
    return together[:own], _share(beside[0]) if beside.ndim == 2 else beside[:own]


def _own_rows(rows: Interaction) -> int:
    return 0 if isinstance(rows, Batch) and rows.stands_in else len(rows)


def _share(values: np.ndarray) -> np.ndarray:
    """This process's of what all have."""
    share = current().share(len(values))
    return values[share.start : share.stop]


def _ids(column: torch.Tensor) -> np.ndarray:
    return column.cpu().numpy()


def _distinct(ids: np.ndarray) -> np.ndarray:
    """Without padding; by a table of what there is, since sorting many ids takes longer."""
    there = np.zeros(int(ids.max(initial=0)) + 1, bool)
    there[ids] = True
    there[0] = False
    return np.flatnonzero(there)
