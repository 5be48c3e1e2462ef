"""Encode any number of items under a token budget, with the gradients of encoding them all at once."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.activations import Room
from recbole_hllm.nn.gathered import most
from recbole_hllm.nn.ragged import reads_alike


class Encoder(Protocol):
    """Reads item texts as an `ItemEncoder` does."""

    @property
    def out_features(self) -> int:
        """Size D of its vectors."""

    def __call__(self, tokens: Tensor, lengths: Tensor, /) -> Tensor:
        """(T,) token ids of N texts, one after the other, and (N,) tokens of each -> (N, D) vectors."""


def encode_items(
    encoder: Encoder,
    tokens: Tensor,
    lengths: Tensor,
    *,
    token_budget: int,
    recompute: bool | Room = False,
) -> Tensor:
    """Encodes N items chunk by chunk, longest with longest so that little is padded.

    Args:
        encoder: an `ItemEncoder`, or what reads like one.
        tokens: (T,) token ids of the N texts, one after the other.
        lengths: (N,) tokens per item.
        token_budget: most tokens of a chunk, padding and one [ITEM] slot per item included; an item longer
            than that is a chunk of its own.
        recompute: keep no activations and run every chunk again in the backward pass with the same random
            state (gradient checkpointing): memory is one chunk's, gradients stay equal. A Room: only those, of the
            longest texts, whose activations do not fit into it.

    Returns:
        (N, D) vectors in the order of the items.

    Raises:
        ModelError: if the budget is not positive.
    """
    if token_budget < 1:
        raise ModelError(f"token budget {token_budget}: a chunk needs room for at least one token")
    if len(lengths) == 0:
        return torch.zeros(0, encoder.out_features, device=tokens.device)

    lengths_sorted, order = torch.sort(lengths, descending=True, stable=True)
    tokens_sorted = _reorder_tokens(tokens, lengths, order)
    lengths_list = lengths_sorted.tolist()

    bounds = list(_chunk_bounds(lengths_list, token_budget))
    again = _computed_again(lengths_list, bounds, recompute) if torch.is_grad_enabled() else 0
    further = 0  # chunks that another process has and this one has not
    if reads_alike():
        number, again = most(len(bounds), again)
        further = number - len(bounds)
    starts = [0, *accumulate(lengths_list)]
    chunks = []
    # The chunks whose activations are kept come last: their backward passes are the first, and when others are computed
    # again all that was kept is free.
    for number, (first, last) in enumerate([(0, 1)] * further + bounds):
        chunk = tokens_sorted[starts[first] : starts[last]], lengths_sorted[first:last]
        if number < again:
            chunks.append(checkpoint(encoder, *chunk, use_reentrant=False, preserve_rng_state=True))
        else:
            chunks.append(encoder(*chunk))
    vectors = torch.cat(chunks[further:])[torch.argsort(order)]
    return vectors + 0 * torch.cat(chunks[:further]).sum() if further else vectors


def share_of_chunks(lengths: Tensor, token_budget: int, rank: int, world_size: int) -> Tensor:
    """Numbers of the items whose chunks one of several processes encodes, longest first.

    Chunks stay whole: `encode_items` of these items makes the very chunks that it makes of all items. The shares of all
    processes, in the order of ranks, are all items, longest first.

    Args:
        lengths: (N,) tokens per item.
        token_budget: as of `encode_items`.
        rank, world_size: which of how many processes.
    """
    lengths_sorted, order = torch.sort(lengths, descending=True, stable=True)
    chunks = list(_chunk_bounds(lengths_sorted.tolist(), token_budget))
    ends = [0, *(last for _, last in chunks)]
    first, last = (ends[len(chunks) * (rank + side) // world_size] for side in (0, 1))
    return order[first:last]


def _computed_again(falling: Sequence[int], bounds: Sequence[tuple[int, int]], recompute: bool | Room) -> int:
    """How many of the first chunks keep no activations."""
    if isinstance(recompute, Room):
        return recompute.computed_again(_sizes(falling, bounds))
    return len(bounds) if recompute else 0


def _reorder_tokens(tokens: Tensor, lengths: Tensor, order: Tensor) -> Tensor:
    """The same texts one after the other, item `order[0]` first."""
    old_start = lengths.cumsum(0) - lengths
    new_length = lengths[order]
    new_start = new_length.cumsum(0) - new_length
    shift = torch.repeat_interleave(old_start[order] - new_start, new_length)
    return tokens[torch.arange(len(tokens), device=tokens.device) + shift]


def chunk_sizes(lengths: Sequence[int], token_budget: int) -> list[tuple[int, int]]:
    """(texts, padded tokens of each) of every chunk that ``encode_items`` makes of texts, in its order."""
    falling = sorted(lengths, reverse=True)
    return _sizes(falling, list(_chunk_bounds(falling, token_budget)))


def _sizes(falling: Sequence[int], bounds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(last - first, falling[first] + 1) for first, last in bounds]


def _chunk_bounds(lengths: Sequence[int], token_budget: int) -> Iterator[tuple[int, int]]:
    """Cuts falling lengths into slices [first, last) of at most `token_budget` padded tokens."""
    first = 0
    while first < len(lengths):
        last = min(first + max(token_budget // (lengths[first] + 1), 1), len(lengths))
        yield first, last
        first = last
