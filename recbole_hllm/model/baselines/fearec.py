"""FEARec: RecBole's, over rows that are made when they are asked for."""

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.recbole_models import recbole_values, sequential_recommender


class FEARec(sequential_recommender.FEARec):
    """RecBole's FEARec (arXiv 2304.09184): SASRec with attention in the frequency domain, and a loss that compares with
    another history before the same item.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: one layer, between which RecBole shares out the frequencies.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        (layers,) = recbole_values(config, "n_layers")
        if layers < 2:
            raise ConfigError(f"n_layers: {layers}: FEARec shares its frequencies out among layers: take 2 at least")
        with contextlib.redirect_stdout(io.StringIO()):  # RecBole prints them
            super().__init__(config, dataset)
        self.dataset = SimpleNamespace(inter_feat=_Columns(dataset))

    def get_same_item_index(self, dataset: Any) -> dict[int, np.ndarray]:
        """Item -> numbers of the training rows with it as target."""
        targets = dataset.inter_feat[self.ITEM_ID].numpy()
        order = np.argsort(targets, kind="stable")
        items, begin = np.unique(targets[order], return_index=True)
        return dict(zip(items.tolist(), np.split(order, begin[1:]), strict=True))


class _Columns:
    """The columns of training rows, as RecBole's code indexes them: ``[name][row]``."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __getitem__(self, name: str) -> "_Column":
        return _Column(self.rows, name)


class _Column:
    def __init__(self, rows: Any, name: str) -> None:
        self.rows, self.name = rows, name

    def __getitem__(self, number: int) -> Tensor:
        values: Tensor = self.rows[[number]][self.name]
        return values[0]
