"""SASRec over frozen text vectors: WhitenRec (arXiv 2402.10602) and UniSRec (arXiv 2206.05941)."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from recbole_hllm.config.keys.frozen_text import TextSASRecKeys, UniSRecKeys, WhitenRecKeys
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import ItemReading, Weights
from recbole_hllm.model.base.further_negatives import check_further
from recbole_hllm.model.base.item_table import INITIAL_STD, groups_by_decay
from recbole_hllm.model.base.sasrec_encoder import ReadsAsSASRec
from recbole_hllm.model.baselines.frozen_llm import ReadsFrozenTexts
from recbole_hllm.nn.item_encoder import StoredItemVectors
from recbole_hllm.nn.text_adaptors import SharedMLP, WhiteningMixture
from recbole_hllm.nn.whitening import whiten, zca


class TextSASRec(ReadsAsSASRec, ReadsFrozenTexts):
    """Item vectors are made of frozen text vectors by an adaptor; the encoder is SASRec's.

    Text vectors are computed once and are in no checkpoint; the language model is then let go. A model gives
    ``adaptor(width)``, and ``prepared(vectors)`` where they are changed before.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
        weights: whether the language model is read.

    Raises:
        ConfigError, DataError, ModelError: texts, language model and sizes do not fit together.
    """

    Keys: ClassVar[type[TextSASRecKeys]]
    settings: TextSASRecKeys
    PURPOSE = "language model that reads item texts"

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        self.check_keys(config)
        super().__init__(config, dataset)
        settings = self.settings
        check_further(settings)
        vectors, source = self.text_vectors(dataset, weights)
        self.items = StoredItemVectors(self.prepared(vectors), self.adaptor(vectors.shape[1]), source)
        self.build_encoder()
        self.use_further_negatives(dataset, settings.hidden_size)

    def prepared(self, vectors: np.ndarray) -> np.ndarray:
        """(n_items, H) text vectors -> what the adaptor reads; (0, H) for an outline."""
        return vectors

    def adaptor(self, width: int) -> nn.Module:
        """Makes (N, D) item vectors of what is prepared; ``width`` is H."""
        raise NotImplementedError

    def item_reading(self, forms: int = 1) -> ItemReading:
        """No text is read; the adaptor reads ``forms`` vectors of each distinct item of a batch."""
        return ItemReading(self.items, np.zeros(self.n_items, int), of_items=[(self.items.projection, forms)])

    def vectors_of(self, ids: Tensor) -> Tensor:
        """(N,) item ids -> (N, D) item vectors, each distinct item's computed once; the padding item's is 0."""
        distinct, places = torch.unique(ids, return_inverse=True)
        return (self.items(distinct) * (distinct != 0)[:, None])[places]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Vectors and single numbers (norms, biases, the logit scale) do not decay."""
        return groups_by_decay(self, "weight_decay" in referenced(self.settings.reference))


class WhitenRec(TextSASRec):
    """Text vectors whitened with the statistics of the catalogue, then an MLP.

    The keys are explained in ``properties/model/WhitenRec.yaml``.
    """

    Keys: ClassVar[type[WhitenRecKeys]] = WhitenRecKeys
    settings: WhitenRecKeys

    def prepared(self, vectors: np.ndarray) -> np.ndarray:
        """(n_items, H) -> (n_items, G H), whitened in each way of ``whitening_groups``, one after the other.

        Raises:
            ConfigError: the numbers cannot be shared equally by so many groups.
        """
        groups, (n_items, width) = self.settings.whitening_groups, vectors.shape
        for number in groups:
            if width % number:
                raise ConfigError(
                    f"whitening_groups: the language model's {width} numbers cannot be shared equally by {number} "
                    "groups"
                )
        prepared = np.zeros((n_items, len(groups) * width), np.float32)
        for place, number in enumerate(groups):
            if n_items > 1:  # without the padding item
                prepared[1:, place * width : (place + 1) * width] = whiten(vectors[1:], zca(vectors[1:], number))
        return prepared

    def adaptor(self, width: int) -> nn.Module:
        """The MLP."""
        return SharedMLP(width, self.settings.hidden_size)

    def item_reading(self, forms: int = 1) -> ItemReading:
        """Each way of whitening is a vector for the MLP."""
        return super().item_reading(len(self.settings.whitening_groups))


class UniSRec(TextSASRec):
    """Text vectors through a mixture of parametric whitenings, and vectors of ids beside them where that is wanted.

    The keys are explained in ``properties/model/UniSRec.yaml``.
    """

    Keys: ClassVar[type[UniSRecKeys]] = UniSRecKeys
    settings: UniSRecKeys

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        super().__init__(config, dataset, weights)
        self.ids: nn.Embedding | None = None
        if self.settings.with_item_ids:
            self.ids = nn.Embedding(self.n_items, self.settings.hidden_size, padding_idx=0)
            with torch.no_grad():
                self.ids.weight[1:].normal_(std=INITIAL_STD)

    def adaptor(self, width: int) -> nn.Module:
        """The mixture."""
        settings = self.settings
        return WhiteningMixture(width, settings.hidden_size, settings.n_experts, settings.adaptor_dropout_prob)

    def vectors_of(self, ids: Tensor) -> Tensor:
        """(N,) item ids -> (N, D) item vectors; the padding item's is 0."""
        vectors = super().vectors_of(ids)
        return vectors if self.ids is None else vectors + self.ids(ids)
