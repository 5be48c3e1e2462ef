"""An Item LLM whose last layers alone are trained: what the others make of each text is computed once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_hllm.config.keys.language_models import EncodingKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.data.texts.states import cached_token_states
from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.item_vectors import encoder_digest, vector_cache
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.layers import LowerLayers, last_layers
from recbole_hllm.nn.precision import autocast

# Items with which it is tried whether states give the vectors that texts give, and how far both may be apart.
_TRIED, _CLOSE = 8, 0.02


class UpperLayers:
    """Reads items as an ItemEncoder does, but for its lower layers, whose states it looks up.

    States are kept in float32 where the precision is ``fp32``, and else in float16, half as large.

    Args:
        encoder: on its device; what lies below its last layers is not trained, nor is there an [ITEM] token.
        catalogue: token ids of every item.
        last: number of the layers that are computed.
        settings: precision and cache.
        token_budget: most padded tokens at once.

    Raises:
        ModelError: the language model cannot be divided like this.
        DataError: the disk is full or the cache cannot be written.
    """

    def __init__(
        self, encoder: ItemEncoder, catalogue: ItemCatalogue, last: int, settings: EncodingKeys, token_budget: int
    ) -> None:
        self.encoder, self.catalogue, self.token_budget = encoder, catalogue, token_budget
        self.lower = LowerLayers(encoder.backbone, last)
        self.dtype = AUTOCAST_DTYPES[settings.precision]
        full, cache = settings.precision == "fp32", vector_cache(settings)
        some = 1 + np.flatnonzero(np.diff(catalogue.offsets)[1:])[:_TRIED]
        width = self._of_tokens(some).shape[1]
        trained = list(last_layers(encoder.backbone, last))
        named = {"weights": encoder_digest(encoder, trained), "precision": settings.precision} if cache else {}
        self.states = cached_token_states(
            self._of_tokens, catalogue, width=width, settings=named, cache=cache,
            dtype=np.float32 if full else np.float16,
        )  # fmt: skip
        self._try(some)

    @property
    def out_features(self) -> int:
        """Size D of the vectors."""
        return self.encoder.out_features

    def __call__(self, places: Tensor, lengths: Tensor) -> Tensor:
        """(T,) places of N items' tokens in the catalogue, and (N,) tokens of each -> (N, D) vectors."""
        return self._read(self.encoder, places, lengths)

    def _read(self, encode: Callable[[Tensor, Tensor], Tensor], places: Tensor, lengths: Tensor) -> Tensor:
        """What ``encode``, which the encoder or a part of it is, makes of tokens and lengths, with known states."""
        at, device = places.cpu().numpy(), places.device
        tokens = torch.from_numpy(self.catalogue.tokens[at].astype(np.int64)).to(device)
        flat = torch.from_numpy(np.asarray(self.states[at], dtype=np.float32)).to(device)
        real = torch.arange(max(int(lengths.max()), 1), device=device) < lengths[:, None]
        states = flat.new_zeros(*real.shape, flat.shape[1]).masked_scatter(real[..., None], flat)
        with self.lower.left_out(states):
            return encode(tokens, lengths)

    @torch.no_grad()
    def _of_tokens(self, ids: np.ndarray) -> np.ndarray:
        """(N,) item ids -> (T, H) states of their tokens."""
        tokens, lengths = (part.to(self._device) for part in self.catalogue.lookup(ids))
        found: list[Tensor] = []

        def keep(tokens: Tensor, lengths: Tensor) -> Tensor:
            with self.lower.watched() as states:
                self.encoder.pooled(tokens, lengths)
            found.extend(part[:count].float().cpu() for part, count in zip(states[0], lengths.tolist(), strict=True))
            return torch.arange(len(found) - len(lengths), len(found), device=lengths.device)[:, None]

        mode = self.encoder.training
        self.encoder.eval()
        try:
            with autocast(self._device, self.dtype):
                # Chunks take items in another order: what comes back says where each is.
                order = encode_items(keep, tokens, lengths, token_budget=self.token_budget)  # type: ignore[arg-type]
        finally:
            self.encoder.train(mode)
        return torch.cat([found[place] for place in order[:, 0].tolist()]).numpy()

    @property
    def _device(self) -> Any:
        return next(self.encoder.parameters()).device

    @torch.no_grad()
    def _try(self, ids: np.ndarray) -> None:
        """Whether the vectors are those of all layers; before whitening, which would make rounding look large."""
        tokens, lengths = (part.to(self._device) for part in self.catalogue.lookup(ids))
        places = self.catalogue.places(ids)[0].to(self._device)
        mode = self.encoder.training
        self.encoder.eval()
        try:
            with autocast(self._device, self.dtype):
                whole = self.encoder.pooled(tokens, lengths).float()
                divided = self._read(self.encoder.pooled, places, lengths).float()
        finally:
            self.encoder.train(mode)
        if (whole - divided).norm() > _CLOSE * whole.norm():
            raise ModelError(
                f"item_llm_tuning: last: the layers of a {self.encoder.backbone.config.model_type} model hand on more "
                "than their states, so that the last ones cannot be computed alone; take full, lora or frozen"
            )
