"""First-order Markov: recommend what most often followed the user's last item."""

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.baselines import MarkovKeys
from recbole_hllm.model.base.training_free import TrainingFree


class Markov(TrainingFree):
    """Score of item j after item i: how often j came directly after i in the training sequences.

    Items that followed equally often, or never, stand in the order of their popularity in training; equally popular
    ones in the order of their ids. So all scores of a row differ, and the ranking is the same on every machine.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Attributes:
        pairs: (P,) the pairs that occur, as i * n_items + j, sorted.
        counts: (P,) how often each of them occurs, float64.
        tie_breaker: (n_items,) float64 in [0, 1), the more the more popular.
        popularity: (n_items,) float64, how often each item occurs in training.
    """

    Keys = MarkovKeys

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        pairs, counts = np.unique(_followed_by(dataset) @ [self.n_items, 1], return_counts=True)
        self.register_buffer("pairs", torch.from_numpy(pairs))
        self.register_buffer("counts", torch.from_numpy(counts.astype(np.float64)))
        popularity = dataset.training_counts()
        self.register_buffer("popularity", torch.from_numpy(popularity.astype(np.float64)), persistent=False)
        popularity[0] = -1  # padding comes last
        best_first = np.argsort(-popularity, kind="stable")
        tie_breaker = np.empty(self.n_items)
        tie_breaker[best_first] = np.arange(self.n_items)[::-1] / self.n_items
        self.register_buffer("tie_breaker", torch.from_numpy(tie_breaker))

    def inference_parameters(self) -> int:
        """A count of each pair that occurs, and of each item."""
        return len(self.counts) + len(self.popularity)

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) score of each row's item, float64."""
        items = interaction[self.ITEM_ID]
        wanted = self._last_items(interaction) * self.n_items + items
        places = torch.searchsorted(self.pairs, wanted).clamp(max=len(self.pairs) - 1)
        return self.counts[places] * (self.pairs[places] == wanted) + self.tie_breaker[items]

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, n_items) score of every item, float64.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0 and ``item_length`` (B,).
        """
        scores = self.tie_breaker.repeat(len(interaction[self.ITEM_SEQ_LEN]), 1)
        self.add_pairs(scores, interaction, self.counts)
        return scores

    def add_pairs(
        self, scores: Tensor, interaction: Interaction, values: Tensor, weights: Tensor | None = None
    ) -> None:
        """Adds the values of pairs that begin with the last item of a row, to the scores of the items that they end
        with, in place.

        Args:
            scores: (B, n_items).
            interaction: as for ``full_sort_predict``.
            values: (P,) of the pairs.
            weights: (B,) what they are multiplied by; None: 1.
        """
        last = self._last_items(interaction)
        begin = torch.searchsorted(self.pairs, last * self.n_items)
        found = torch.searchsorted(self.pairs, (last + 1) * self.n_items) - begin
        rows = torch.arange(len(last), device=last.device).repeat_interleave(found)
        places = torch.arange(len(rows), device=last.device) + (begin - found.cumsum(0) + found)[rows]
        added = values[places] if weights is None else values[places] * weights[rows]
        scores[rows, self.pairs[places] % self.n_items] += added.to(scores.dtype)

    def smoothed(self, smoothing: float) -> tuple[Tensor, Tensor]:
        """Logarithms of smoothed probabilities, less a number that all items of a row have in common.

        Item j follows item i with p(j | i) = (c_ij + a q_j) / (c_i + a), where c_ij are the counts, c_i their sum over
        j, and q_j = (n_j + 1) / (sum of n + number of items) is the popularity of j, which occurs n_j times. So
        log p(j | i) = log q_j + log(1 + c_ij / (a q_j)) + log(a / (c_i + a)).

        Args:
            smoothing: a, above 0.

        Returns:
            (n_items,) the first term, 0 for the padding item, and (P,) the second one of each pair, float64.
        """
        share = (self.popularity + 1) / (self.popularity[1:].sum() + self.n_items - 1)
        values = torch.log1p(self.counts / (smoothing * share[self.pairs % self.n_items]))
        share[0] = 1
        return share.log(), values

    def _last_items(self, interaction: Interaction) -> Tensor:
        """(B,) ids, 0 where the history is empty."""
        place = (interaction[self.ITEM_SEQ_LEN] - 1).clamp(min=0)
        return interaction[self.ITEM_SEQ].gather(1, place[:, None])[:, 0]


def _followed_by(dataset: Any) -> np.ndarray:
    """(N, 2) items of every two neighbouring interactions of a sequence, the second of them a training interaction."""
    sequences, positions = dataset.sequences, np.asarray(dataset.training_positions)
    positions = positions[positions > sequences.offsets[sequences.of(positions)]]
    return np.stack([sequences.items[positions - 1], sequences.items[positions]], axis=1).astype(np.int64)
