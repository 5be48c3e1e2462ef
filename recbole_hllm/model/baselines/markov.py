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
    """

    Keys = MarkovKeys

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        pairs, counts = np.unique(_followed_by(dataset) @ [self.n_items, 1], return_counts=True)
        self.register_buffer("pairs", torch.from_numpy(pairs))
        self.register_buffer("counts", torch.from_numpy(counts.astype(np.float64)))
        popularity = dataset.training_counts()
        popularity[0] = -1  # padding comes last
        best_first = np.argsort(-popularity, kind="stable")
        tie_breaker = np.empty(self.n_items)
        tie_breaker[best_first] = np.arange(self.n_items)[::-1] / self.n_items
        self.register_buffer("tie_breaker", torch.from_numpy(tie_breaker))

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
        last = self._last_items(interaction)
        begin = torch.searchsorted(self.pairs, last * self.n_items)
        found = torch.searchsorted(self.pairs, (last + 1) * self.n_items) - begin
        rows = torch.arange(len(last), device=last.device).repeat_interleave(found)
        places = torch.arange(len(rows), device=last.device) + (begin - found.cumsum(0) + found)[rows]
        scores = self.tie_breaker.repeat(len(last), 1)
        scores[rows, self.pairs[places] % self.n_items] += self.counts[places]
        return scores

    def _last_items(self, interaction: Interaction) -> Tensor:
        """(B,) ids, 0 where the history is empty."""
        place = (interaction[self.ITEM_SEQ_LEN] - 1).clamp(min=0)
        return interaction[self.ITEM_SEQ].gather(1, place[:, None])[:, 0]


def _followed_by(dataset: Any) -> np.ndarray:
    """(N, 2) items of every two neighbouring interactions of a sequence, the second of them a training interaction."""
    sequences, positions = dataset.sequences, np.asarray(dataset.training_positions)
    positions = positions[positions > sequences.offsets[sequences.of(positions)]]
    return np.stack([sequences.items[positions - 1], sequences.items[positions]], axis=1).astype(np.int64)
