"""HSTU (arXiv 2402.17152) for next-item prediction, as its authors wrote it and as HLLM's authors changed it."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from recbole_hllm.config.keys.baselines import HSTUKeys
from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.item_table import INITIAL_STD, ItemTableRecommender, check_heads, position_table
from recbole_hllm.model.base.next_item import History
from recbole_hllm.model.base.servable import with_weights
from recbole_hllm.nn.hstu import HSTUBlock, time_buckets
from recbole_hllm.nn.user_models.sequence import HSTUUser


class HSTU(ItemTableRecommender):
    """Gated attention layers without softmax over item vectors; every position of a window is a target.

    Variant ``meta`` is the authors' research code: item vectors times the square root of D plus learned positions,
    dropout, blocks with a bias for distance and time; fixed temperature 0.05, negatives dropped by id only. Variant
    ``hllm`` is the baseline in HLLM's code: no square root, no input dropout, no bias, and HLLM's loss with learned
    temperature and cosine filter.

    Args:
        config: the run's Config; keys are explained in ``properties/model/HSTU.yaml``.
        dataset: the training part of a SequenceDataset.

    Attributes:
        IMPLEMENTATIONS: for each ``implementation``, where its keys' defaults differ from the property file.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    Keys: ClassVar[type[HSTUKeys]] = HSTUKeys
    settings: HSTUKeys
    IMPLEMENTATIONS = {"meta": {}, "hllm": {"temperature": None, "nce_thres": 0.99}}

    def __init__(self, config: Any, dataset: Any) -> None:
        width = self.Keys.of(config).hidden_size
        super().__init__(config, dataset, width)
        settings, n_heads, dropout = self.settings, self.settings.n_heads, self.settings.hidden_dropout_prob
        check_heads(width, n_heads)
        self.faithful = settings.implementation == "meta"
        self.scale = width**0.5 if self.faithful else 1.0
        self.positions = position_table(settings, width, width**-0.5 if self.faithful else INITIAL_STD)
        self.input_dropout = dropout if self.faithful else 0.0
        self.blocks = nn.ModuleList(
            HSTUBlock(width, n_heads, settings.MAX_ITEM_LIST_LENGTH, dropout, relative_bias=self.faithful)
            for _ in range(settings.n_layers)
        )

    def read_history(self, vectors: Tensor, history: History) -> Tensor:
        """(B, S, D) item vectors -> (B, S, D) predictions.

        Raises:
            ModelError: implementation ``meta`` got rows without times.
        """
        x = vectors * self.scale + self.positions(vectors.shape[1])
        x = F.dropout(x, self.input_dropout, self.training)
        buckets = self._time_buckets(history)
        for block in self.blocks:
            x = block(x, buckets)
        return x

    def _time_buckets(self, history: History) -> Tensor | None:
        if not self.faithful:
            return None
        if history.times is None or history.next_times is None:
            raise ModelError(
                "HSTU's implementation meta looks at times: its rows need event_time_list and, to recommend, "
                "event_time (the time of the recommendation); or train with implementation: hllm, which looks at none"
            )
        return time_buckets(history.times, history.next_times)

    def user_model(self) -> HSTUUser:
        """The blocks, which read histories without RecBole; those of ``meta`` read times, too."""
        settings = self.settings
        sizes = settings.hidden_size, settings.MAX_ITEM_LIST_LENGTH, settings.n_layers, settings.n_heads
        return with_weights(HSTUUser(*sizes, with_times=self.faithful), self)
