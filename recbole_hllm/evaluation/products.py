"""Which models score with a product of a user's and an item's vector: found by watching one compute its scores."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__}


class ProductFinder:
    """Finds the vectors whose product a model's scores are, as those of most of RecBole's models.

    The model's own code runs, but the product is not computed: in its place the model gets a tensor of its shape
    without memory. Where that very tensor is what the model returns, the scores are the product and nothing else; where
    it adds a bias or takes a sigmoid, they are not, and the model is not watched again.

    Args:
        score: rows -> (B, N) or (B * N,) scores, of a model in evaluation mode.
        n_items: N.
    """

    def __init__(self, score: Callable[[Any], Tensor], n_items: int) -> None:
        self.score, self.n_items, self.tried_in_vain = score, n_items, False

    def find(self, rows: Any) -> tuple[Tensor, Tensor] | None:
        """(B, D) and (N, D) vectors of some rows and of all items, float32 or float64; None where there are none."""
        if self.tried_in_vain:
            return None
        with warnings.catch_warnings(), _Watch(len(rows), self.n_items) as watch:
            warnings.filterwarnings("ignore", "Use of .* on expanded tensors")
            try:
                scores = self.score(rows)
            except Exception:  # about the stand-in: it is NaN, and can hardly be written to. Others come back at once
                scores = None
        self.tried_in_vain = scores is None or not watch.handed_back(scores)
        return None if self.tried_in_vain else watch.factors


class _Watch(TorchFunctionMode):
    """Keeps the factors of the first product of the wanted shape, and puts a stand-in in its place."""

    def __init__(self, n_rows: int, n_items: int) -> None:
        super().__init__()
        self.shape = n_rows, n_items
        self.factors: tuple[Tensor, Tensor] | None = None
        self.stand_in: Tensor | None = None
        self.version = 0  # of the stand-in

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS and self.factors is None and not kwargs and self._is_wanted(*args):
            self.factors = args[0], args[1].T
            self.stand_in = args[0].new_full((1, 1), torch.nan).expand(self.shape)
            self.version = self.stand_in._version
            return self.stand_in
        return func(*args, **(kwargs or {}))

    def _is_wanted(self, users: Tensor, items: Tensor) -> bool:
        return (
            users.dim() == items.dim() == 2
            and (len(users), items.shape[1]) == self.shape
            and users.dtype == items.dtype in (torch.float32, torch.float64)
            and users.layout == items.layout == torch.strided
            and not torch.is_autocast_enabled(users.device.type)
        )

    def handed_back(self, scores: Tensor) -> bool:
        """Whether scores are the stand-in, untouched; a general model makes it flat. Torch counts what is written to a
        tensor and its views: some operations may write to one without memory."""
        stand_in = self.stand_in
        return (
            stand_in is not None
            and scores.data_ptr() == stand_in.data_ptr()
            and scores.shape in (stand_in.shape, (stand_in.numel(),))
            and scores._version == stand_in._version == self.version
        )
