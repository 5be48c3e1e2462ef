"""Next-token prediction: how well a causal language model tells each token of a text from those before it."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from recbole_hllm.nn.ragged import similar_lengths

# Logits of so many tokens are held at once: with a vocabulary of 50,000 words, 200 MB of float32.
_TOKENS_AT_ONCE = 1024


def next_token_losses(
    backbone: PreTrainedModel, words: Tensor, tokens: Tensor, lengths: Tensor, given: Tensor
) -> Tensor:
    """Cross-entropy of each token over the whole vocabulary.

    Logits are products of the last hidden state of the token before and the words' vectors. They are computed again in
    the backward pass, so that those of a whole batch are never held.

    Args:
        backbone: a causal language model without head.
        words: (V, H) the words' output vectors: the input embeddings where the language model ties them.
        tokens: (T,) token ids of N texts, one after the other.
        lengths: (N,) tokens of each.
        given: (N,) how many first tokens of each are read and not predicted, at least 1.

    Returns:
        (P,) float32 losses in nats of the other tokens; texts of similar length together, the longest first.
    """
    starts = lengths.cumsum(0) - lengths
    states, targets = [], []
    for texts, longest in similar_lengths(lengths):
        column = torch.arange(longest, device=tokens.device)
        places = (starts[texts, None] + column).clamp(max=len(tokens) - 1)
        # Padding is on the right, where causal attention never looks: what stands there does not matter.
        padded = tokens[places]
        hidden = backbone(input_ids=padded, use_cache=False).last_hidden_state
        predicted = (column >= given[texts, None]) & (column < lengths[texts, None])
        states.append(hidden[:, :-1][predicted[:, 1:]])
        targets.append(padded[predicted])
    return _losses(torch.cat(states), words, torch.cat(targets))


def _losses(states: Tensor, words: Tensor, targets: Tensor) -> Tensor:
    parts = zip(states.split(_TOKENS_AT_ONCE), targets.split(_TOKENS_AT_ONCE), strict=True)
    return torch.cat([checkpoint(_cross_entropy, some, words, wanted, use_reentrant=False) for some, wanted in parts])


def _cross_entropy(states: Tensor, words: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy((states @ words.T).float(), targets, reduction="none")
