"""LEARNScorer: LEARN on labelled rows, trained on what users liked before them."""

from typing import ClassVar

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.learn import LEARNScorerKeys
from recbole_hllm.model.base.contract import LabelledScorer
from recbole_hllm.model.learn.learn import LEARN


class LEARNScorer(LEARN, LabelledScorer):
    """LEARN's cosine as the score of labelled interactions.

    It is trained on histories and targets out of the events that are before validation and test and can be in a
    history (``history_filter``), so that a ranker of the same rows can take its vectors: nothing of those rows is in
    them.

    Args:
        config: the run's Config; keys are explained in ``properties/model/LEARNScorer.yaml`` and ``LEARN.yaml``.
        dataset: the training part of a LabelledDataset, of split rows.
        item_texts, weights: as for LEARN.
    """

    Keys: ClassVar[type[LEARNScorerKeys]] = LEARNScorerKeys
    settings: LEARNScorerKeys
    similarity = "other"  # half of 1 + the cosine

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) each row's cosine c as a number from 0 to 1, (1 + c) / 2; no probability."""
        return (1 + super().predict(interaction)) / 2

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, n_items) the same of every item."""
        users, items = self.directions(interaction)
        return (1 + users @ items.T) / 2
