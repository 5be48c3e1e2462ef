"""What models that read a history and train nothing share."""

from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.model.base.contract import CatalogueScorer


class TrainingFree(SequentialRecommender, CatalogueScorer):
    """Is ready once built; its one pass over the training rows changes nothing.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Attributes:
        settings: the values of the model's keys.
    """

    settings: RunKeys

    type = ModelType.TRADITIONAL
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = self.Keys.of(config)
        # As in RecBole's Pop: an optimizer wants a parameter.
        self.fake_loss = torch.nn.Parameter(torch.zeros(1))

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """A loss of 0: there is nothing to train."""
        return self.fake_loss.sum() * 0
