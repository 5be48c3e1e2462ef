"""Next-token prediction: how well a causal language model tells each token of a text from those before it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from recbole_hllm.nn.backbone import BackboneSpec, load_lm_head
from recbole_hllm.nn.ragged import similar_lengths

# Logits of so many tokens are held at once: with a vocabulary of 50,000 words, 100 MB of float32.
_TOKENS_AT_ONCE = 512


def untied_head(backbone: PreTrainedModel, spec: BackboneSpec) -> nn.Module | None:
    """The head over the vocabulary that a causal language model has of its own.

    Args:
        backbone: what ``load_backbone`` made of ``spec``.
        spec: the pretrained head is read from its source; from scratch, it is drawn as other weights are.

    Returns:
        (..., H) hidden states -> (..., V) logits; None where the language model ties it to its input embeddings.

    Raises:
        ModelError: the pretrained weights have no head.
    """
    if getattr(backbone.config, "tie_word_embeddings", False):
        return None
    if spec.init == "pretrained":
        return load_lm_head(spec)
    head = nn.Linear(backbone.config.hidden_size, backbone.config.vocab_size, bias=False)
    nn.init.normal_(head.weight, std=backbone.config.initializer_range)
    return head


def next_token_losses(
    backbone: PreTrainedModel,
    tokens: Tensor,
    lengths: Tensor,
    given: Tensor,
    head: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Cross-entropy of each token over the whole vocabulary, told from the hidden state of the token before.

    Logits are computed again in the backward pass, so that those of a whole batch are never held.

    Args:
        backbone: a causal language model without head.
        tokens: (T,) token ids of N texts, one after the other.
        lengths: (N,) tokens of each.
        given: (N,) how many first tokens of each are only read; the very first always is.
        head: (P, H) hidden states -> (P, V) logits; None: products with the input embeddings, which many language
            models tie to their head.

    Returns:
        (P,) float32 losses in nats of the other tokens; texts of similar length together, the longest first.
    """
    starts = lengths.cumsum(0) - lengths
    states, targets = [], []
    for texts, longest in similar_lengths(lengths):
        column = torch.arange(longest, device=tokens.device)
        # Padding is on the right, where causal attention never looks: what stands there does not matter.
        padded = tokens[(starts[texts, None] + column).clamp(max=len(tokens) - 1)]
        hidden = backbone(input_ids=padded, use_cache=False).last_hidden_state
        predicted = (column >= given[texts, None].clamp(min=1)) & (column < lengths[texts, None])
        states.append(hidden[:, :-1][predicted[:, 1:]])
        targets.append(padded[predicted])
    embeddings = backbone.get_input_embeddings()
    return _losses(torch.cat(states), torch.cat(targets), head or (lambda some: some @ embeddings.weight.T))


def _losses(states, targets, head) -> Tensor:
    def cross_entropy(some, wanted):
        return F.cross_entropy(head(some).float(), wanted, reduction="none")

    parts = zip(states.split(_TOKENS_AT_ONCE), targets.split(_TOKENS_AT_ONCE), strict=True)
    return torch.cat([checkpoint(cross_entropy, *part, use_reentrant=False) for part in parts])
