"""What the baselines that know items by their id only have in common."""

from typing import Any

import torch
from torch import Tensor, nn

from recbole_hllm.config.keys.next_item import HistoryKeys
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.further_negatives import check_further
from recbole_hllm.model.base.next_item import NextItemRecommender
from recbole_hllm.nn.positions import PositionTable

INITIAL_STD = 0.02


class ItemTableRecommender(NextItemRecommender):
    """A next-item model whose item vectors are the rows of a table, learned from interactions alone.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
        width: size of a row.
    """

    def __init__(self, config: Any, dataset: Any, width: int) -> None:
        super().__init__(config, dataset)
        self.decay_everything = "weight_decay" in referenced(self.settings.reference)
        self.item_embedding = nn.Embedding(self.n_items, width, padding_idx=0)
        with torch.no_grad():
            self.item_embedding.weight[1:].normal_(std=INITIAL_STD)
        check_further(self.settings)
        self.use_further_negatives(dataset, width)

    def vectors_of(self, ids: Tensor) -> Tensor:
        """(N,) item ids -> (N, D) rows of the table; the padding item's is 0."""
        return self.item_embedding(ids)

    def items_are_trained(self) -> bool:
        """Whether the table is."""
        return self.item_embedding.weight.requires_grad

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Vectors and single numbers (norms, biases, the logit scale) do not decay."""
        return groups_by_decay(self, self.decay_everything)


def groups_by_decay(model: nn.Module, everything: bool = False) -> list[dict[str, Any]]:
    """torch's parameter groups: matrices, or everything, and what does not decay."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[everything or parameter.dim() > 1].append(parameter)
    return [{"params": groups[True]}] + ([{"params": groups[False], "weight_decay": 0.0}] if groups[False] else [])


def position_table(settings: HistoryKeys, width: int, std: float) -> PositionTable:
    """Learned vectors of ``MAX_ITEM_LIST_LENGTH`` positions.

    Raises:
        ConfigError: histories are to be longer in evaluation, at positions that are never trained.
    """
    length, longest = settings.MAX_ITEM_LIST_LENGTH, settings.MAX_ITEM_LIST_LENGTH_TEST
    if longest is not None and longest > length:
        raise ConfigError(
            f"MAX_ITEM_LIST_LENGTH_TEST: {settings.model} learns a vector for each of MAX_ITEM_LIST_LENGTH: {length} "
            f"positions and knows none for {longest}; give at most {length}, or train with longer histories"
        )
    return PositionTable(length, width, std)


def check_heads(hidden_size: int, n_heads: int) -> None:
    """Raises ConfigError unless ``n_heads`` divides ``hidden_size``."""
    if hidden_size % n_heads:
        raise ConfigError(f"n_heads: hidden_size {hidden_size} cannot be shared equally by {n_heads} heads")
