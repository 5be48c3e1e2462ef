"""Item LLM: the token ids of item texts -> one vector per item (HLLM, arXiv 2409.12740, section 3.1)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.item_head import Whitening, item_head
from recbole_hllm.nn.packing import Packing, pack
from recbole_hllm.nn.probe import behaviour_of, check_padding, check_reads_words, position_range

ITEM_TOKEN_STD = 0.02
# Vectors that are whitened at a time.
_AT_ONCE = 1 << 16


class ItemEncoder(nn.Module):
    """Encodes item texts: last hidden state at a learned [ITEM] token, or the mean over the tokens.

    [ITEM] is no vocabulary entry: one learned vector ``item_emb_tokens`` (1, n, H), drawn from N(0, 0.02^2),
    which takes the place of the input embedding directly after the text.

    Args:
        backbone: a language model without head; bidirectional ones keep their attention.
        item_emb_token_n: 1 for the [ITEM] token, 0 for the mean over the item's tokens.
        out_features: size of the item vectors; a linear layer joins it to another hidden size. None keeps H.
        whitening: of the vectors before that layer: a method of `Whitening`; None: none.
        head_hidden: size between the two layers of a perceptron in place of that layer; None: no perceptron.
        max_text_length: longest text in tokens, without [ITEM].
        right_aligned_positions: count positions so that [ITEM] is always at `max_text_length`, as the
            official code does, instead of starting at 0. Matters for learned position tables only.
        packed: read texts without padding, see `packing`; the backbone then reads nothing else.
        length_key: the key that the user sets `max_text_length` with, for errors.

    Raises:
        ModelError: for another number of [ITEM] tokens, or if the backbone has too few positions, makes something else
            of a text when padding follows it, or reads the vectors of words as something else than the words.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        item_emb_token_n: int = 1,
        out_features: int | None = None,
        whitening: str | None = None,
        head_hidden: int | None = None,
        max_text_length: int = 256,
        right_aligned_positions: bool = False,
        packed: bool = False,
        length_key: str = "MAX_TEXT_LENGTH",
    ):
        super().__init__()
        if item_emb_token_n not in (0, 1):
            raise ModelError(f"item_emb_token_n={item_emb_token_n}: only 1 ([ITEM] token) and 0 (mean) exist")
        check_reads_words(backbone)
        check_padding(backbone)
        self.first_position, n_positions = position_range(backbone)
        if n_positions is not None and max_text_length + item_emb_token_n > n_positions:
            and_token = " and 1 [ITEM] token" if item_emb_token_n else ""
            raise ModelError(
                f"texts of {max_text_length} tokens{and_token} do not fit into the "
                f"{n_positions} positions of the language model; the longest text it can read has "
                f"{n_positions - item_emb_token_n} tokens ({length_key})"
            )
        behaviour = behaviour_of(backbone)
        self.backbone = backbone
        self.bidirectional, self.pooled_size = not behaviour.causal, behaviour.output_size
        self.max_text_length = max_text_length
        self.right_aligned_positions = right_aligned_positions
        self.packed = packed
        if packed:
            pack(backbone)
        self.item_emb_tokens = (
            nn.Parameter(torch.randn(1, item_emb_token_n, behaviour.input_size) * ITEM_TOKEN_STD)
            if item_emb_token_n
            else None
        )
        self.out_features = self.pooled_size if out_features is None else out_features
        self.whitening = Whitening(self.pooled_size, whitening) if whitening else None
        self.projection = item_head(self.pooled_size, self.out_features, head_hidden)

    @property
    def pooling(self) -> str:
        """How the last hidden states become one vector."""
        return "mean" if self.item_emb_tokens is None else "[ITEM]"

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encodes N items.

        Args:
            tokens: (T,) token ids of the N texts, one after the other, no padding and no [ITEM].
            lengths: (N,) tokens per item, may be 0. T is their sum.

        Returns:
            (N, out_features) item vectors, not normalised. The mean over no tokens at all is the zero vector
            (before the projection, where there is one).
        """
        return self.project(self.pooled(tokens, lengths))

    def project(self, pooled: Tensor) -> Tensor:
        """(N, H) vectors of ``pooled`` -> (N, out_features) item vectors."""
        return self.projection(pooled if self.whitening is None else self.whitening(pooled))

    def pooled(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """(N, H) vectors before whitening and projection, in the width of the language model; arguments as
        ``forward``'s."""
        # an item of no tokens still has one slot, since attention to nothing is NaN
        used = (lengths + (0 if self.item_emb_tokens is None else 1)).clamp(min=1)
        column = torch.arange(int(used.max()), device=tokens.device)
        is_text = column < lengths[:, None]
        padded = tokens.new_zeros(is_text.shape).masked_scatter(is_text, tokens)
        is_item, positions = column == lengths[:, None], self._positions(column, lengths)
        if self.packed:
            hidden = self._packed_states(padded, is_item, positions, used, column < used[:, None])
        else:
            hidden = self._padded_states(padded, is_item, positions, column < used[:, None])
        return self._pool(hidden, is_text, lengths)

    def _positions(self, column: Tensor, lengths: Tensor) -> Tensor:
        """(N, W) position ids."""
        if not self.right_aligned_positions:
            return (self.first_position + column).expand(len(lengths), -1)
        positions = (self.max_text_length - lengths)[:, None] + column
        return self.first_position + positions.clamp(max=self.max_text_length)

    def _embedded(self, tokens: Tensor, is_item: Tensor) -> Tensor:
        """Token ids of any shape -> their vectors, [ITEM]'s where it stands."""
        vectors = self.backbone.get_input_embeddings()(tokens)
        if self.item_emb_tokens is None:
            return vectors
        return torch.where(is_item[..., None], self.item_emb_tokens[0].to(vectors.dtype), vectors)

    def _packed_states(
        self, tokens: Tensor, is_item: Tensor, positions: Tensor, used: Tensor, is_used: Tensor
    ) -> Tensor:
        """(N, W) tokens -> (N, W, H) last hidden states, zeros where nothing is read."""
        hidden = self.backbone(
            inputs_embeds=self._embedded(tokens[is_used], is_item[is_used])[None],
            position_ids=positions[is_used][None],
            **Packing.of(used).options(self.backbone),
            **({} if self.bidirectional else {"use_cache": False}),
        ).last_hidden_state[0]
        states = hidden.new_zeros(*tokens.shape, hidden.shape[-1])
        states[is_used] = hidden
        return states

    def _padded_states(self, tokens: Tensor, is_item: Tensor, positions: Tensor, is_used: Tensor) -> Tensor:
        """The same, of rows padded on the right, where causal attention never looks."""
        options: dict[str, Any] = {"attention_mask": is_used.long()} if self.bidirectional else {"use_cache": False}
        if self.right_aligned_positions:
            options["position_ids"] = positions
            # transformers takes position ids that do not rise by one for packed rows, unless a mask is given
            options.setdefault("attention_mask", torch.ones_like(positions))
        return self.backbone(inputs_embeds=self._embedded(tokens, is_item), **options).last_hidden_state

    def _pool(self, hidden: Tensor, is_text: Tensor, lengths: Tensor) -> Tensor:
        """(N, W, H) last hidden states -> (N, H)."""
        if self.item_emb_tokens is not None:
            return hidden[torch.arange(len(lengths), device=hidden.device), lengths]
        return (hidden * is_text[..., None]).sum(1) / lengths.clamp(min=1)[:, None]


class StoredItemVectors(nn.Module):
    """Takes the place of an `ItemEncoder` whose language model is frozen: vectors are looked up and projected. Whitened
    ones are computed at the first need, from the mean and matrix of a checkpoint where there is one, and stay on the
    device.

    The vectors are no weights: a checkpoint holds ``source`` instead and is refused where they come from others.

    Args:
        vectors: (n_items, H) of `ItemEncoder.pooled`, float32 or float16, memory-mapped or not; they stay where they
            are.
        projection: of that encoder, (..., H) -> (..., out_features); trained on.
        source: hexadecimal digest of the weights that computed the vectors.
        whitening: of that encoder, with the statistics of these vectors.
    """

    source: Tensor

    def __init__(self, vectors: np.ndarray, projection: nn.Module, source: str, whitening: Whitening | None = None):
        super().__init__()
        self.vectors, self.whitening, self.projection = vectors, whitening, projection
        self._whitened: Tensor | None = None
        self.register_buffer("source", torch.tensor(list(bytes.fromhex(source)), dtype=torch.uint8))

    @property
    def source_digest(self) -> str:
        """Hexadecimal digest of the weights that computed the vectors."""
        return bytes(self.source.tolist()).hex()

    def forward(self, ids: Tensor) -> Tensor:
        """(N,) item ids -> (N, out_features) vectors, on the device of the ids."""
        return self.projection(self._whitened_rows(ids) if self.whitening is not None else self._stored(ids))

    def _stored(self, ids: Tensor) -> Tensor:
        rows = np.asarray(self.vectors[ids.cpu().numpy()], dtype=np.float32)
        return torch.from_numpy(rows).to(ids.device)

    def _whitened_rows(self, ids: Tensor) -> Tensor:
        assert self.whitening is not None, "asked for"
        if self._whitened is None or self._whitened.device != ids.device:
            every = torch.arange(len(self.vectors), device=ids.device)
            self._whitened = torch.cat([self.whitening(self._stored(some)) for some in every.split(_AT_ONCE)])
        return self._whitened[ids]

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        metadata: dict[str, Any],
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        own, self._whitened = self.source.clone(), None
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        if not torch.equal(self.source, own):
            self.source.copy_(own)
            errors.append(
                "it was trained with a frozen language model of other weights: what item_pretrain_dir or "
                "pretrained_hllm names is no longer the same, or other layers or pooling of it"
            )
