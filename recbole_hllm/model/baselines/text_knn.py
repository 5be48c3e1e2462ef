"""TextKNN: nearest neighbours of the history among the item vectors of a frozen language model."""

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.baselines import TextKNNKeys
from recbole_hllm.model.base.contract import Factorised, Weights
from recbole_hllm.model.base.servable import Servable
from recbole_hllm.model.base.training_free import TrainingFree
from recbole_hllm.model.baselines.frozen_llm import ReadsFrozenTexts
from recbole_hllm.nn.user_models.mean import MeanUser
from recbole_hllm.serving.served import ServedVectors


class TextKNN(TrainingFree, Factorised, ReadsFrozenTexts, Servable):
    """Score: cosine of an item's vector and the mean of the history's vectors, each of length 1.

    Item vectors are HLLM's before any training: the mean over the text's last hidden states of the pretrained Item
    LLM ([ITEM], a token to be learned, would say nothing). They are computed once; the LLM is then let go.

    Args:
        config: the run's Config; keys are explained in ``properties/model/TextKNN.yaml``.
        dataset: the training part of a SequenceDataset.
        weights: whether there are item vectors at once.

    Raises:
        ConfigError, DataError, ModelError: texts and language model are missing or do not fit together.
    """

    Keys: ClassVar[type[TextKNNKeys]] = TextKNNKeys
    settings: TextKNNKeys
    PURPOSE = "Item LLM whose vectors are compared"
    # RecBole's name for what a checkpoint holds besides weights: vectors that are read need no LLM.
    other_parameter_name = ["vectors"]

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        super().__init__(config, dataset)
        self.vectors: Tensor | None = None
        if weights.are_read:
            self.check_keys(config)
            vectors, _ = self.text_vectors(dataset)
            self.vectors = F.normalize(torch.from_numpy(np.array(vectors)).to(self.settings.device), dim=-1)

    def inference_parameters(self) -> int:
        """The vectors."""
        return 0 if self.vectors is None else self.vectors.numel()

    def item_vectors(self) -> Tensor:
        """(n_items, D) vectors of length 1; row 0 is the padding item's, zeros."""
        assert self.vectors is not None, "computed, or read with the checkpoint"
        return self.vectors

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) mean vectors of the last ``knn_history`` items, zeros where the history is empty.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0 and ``item_length`` (B,).
        """
        items, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN][:, None]
        place = torch.arange(items.shape[1], device=items.device)
        read = place < length
        if self.settings.knn_history:
            read &= place >= length - self.settings.knn_history
        vectors = self.item_vectors()
        total = F.embedding_bag(items, vectors, per_sample_weights=read.to(vectors.dtype), mode="sum")
        return total / read.sum(dim=1, keepdim=True).clamp(min=1)

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) cosine of each row's user vector and its item's vector."""
        return (self._directions(interaction) * self.item_vectors()[interaction[self.ITEM_ID]]).sum(dim=-1)

    def factors(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """(B, D) and (n_items, D) vectors of length 1, whose product is the cosine."""
        return self._directions(interaction), self.item_vectors()

    def served(self) -> ServedVectors:
        """The mean, and the vectors."""
        longest, last = self.settings.MAX_ITEM_LIST_LENGTH, self.settings.knn_history
        return ServedVectors(MeanUser(), self.item_vectors(), cosine=True, length=min(longest, last or longest))

    def _directions(self, interaction: Interaction) -> Tensor:
        return F.normalize(self.user_vectors(interaction), dim=-1)
