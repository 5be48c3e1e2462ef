"""Next-token prediction: how well a causal language model predicts each token of a text from those before it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import without_gpu
from recbole_hllm.nn.ragged import similar_lengths

# Logits of so many tokens are held at once: with a vocabulary of 50,000 words, 100 MB of float32.
_TOKENS_AT_ONCE = 512


class WordHead(nn.Module):
    """Last hidden states -> logits, as a causal language model computes them: through all that lies between the two,
    be it a layer, a scale, a cap or a bias. Weights that the backbone has too stay the backbone's.

    Args:
        model: a causal language model with its head. Its ``backbone`` is taken out of it.
        backbone: the name of that in it.
    """

    def __init__(self, model: PreTrainedModel, backbone: str):
        super().__init__()
        taken = model.get_submodule(backbone)
        setattr(model, backbone, _Read(taken))
        shared = set(map(id, taken.parameters()))
        for part in model.modules():
            for name, weight in list(part.named_parameters(recurse=False)):
                if id(weight) in shared:
                    delattr(part, name)
                    object.__setattr__(part, name, weight)  # read as before, saved and trained with the backbone only
        self.model = model

    def forward(self, hidden: Tensor) -> Tensor:
        """(P, H) hidden states -> (P, V) logits."""
        return self.model(inputs_embeds=hidden[None]).logits[0]


class _Read(nn.Module):
    """Takes the place of a backbone that has read already: what comes in are its last hidden states."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.of = [backbone]  # in a list, which makes it no part of this

    def __getattr__(self, name: str) -> Any:
        """Numbers that the model looks up in its backbone, and for one inside it another of this kind."""
        value = getattr(self.of[0], name)
        return _Read(value) if isinstance(value, nn.Module) else value

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> "_Outputs":
        return _Outputs((inputs_embeds,))


class _Outputs(tuple[Tensor]):
    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        """Caches, attention weights and the like, which a head passes on."""


def with_head(model: PreTrainedModel) -> tuple[PreTrainedModel, WordHead]:
    """Takes a causal language model apart; weights that its head shares with its input embeddings stay shared.

    Args:
        model: as ``load_causal_lm`` gives it.

    Returns:
        what ``load_backbone`` gives, and the head.

    Raises:
        ModelError: the parts do not give the logits of the whole.
    """
    config, training = model.config, model.training
    kind, attention = config.model_type, config._attn_implementation
    tokens = torch.arange(4, device=next(model.parameters()).device)[None] % model.config.vocab_size
    parts = {name: part for name, part in model.named_children() if isinstance(part, PreTrainedModel)}
    config._attn_implementation = without_gpu(attention)
    try:
        with torch.no_grad():
            expected = model.eval()(input_ids=tokens).logits[0]
            if len(parts) == 1:
                ((name, backbone),) = parts.items()
                head = WordHead(model, name)
                if _alike(lambda: head(backbone(input_ids=tokens).last_hidden_state[0]), expected):
                    return backbone.train(training), head.train(training)
    finally:
        config._attn_implementation = attention
    raise ModelError(
        f"a {kind} model has a head that cannot be taken apart from the rest; take another causal language model, "
        "such as llama"
    )


def _alike(compute: Callable[[], Tensor], expected: Tensor) -> bool:
    try:
        found = compute()
    except Exception:  # whatever a model's own code raises where its backbone is not what it takes it for
        return False
    if found.is_meta:  # of a model without numbers
        return True
    rounding = 1e-4 * expected.abs().max().item()
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=rounding)


def next_token_losses(
    backbone: PreTrainedModel,
    tokens: Tensor,
    lengths: Tensor,
    given: Tensor,
    head: Callable[[Tensor], Tensor],
) -> Tensor:
    """Cross-entropy of each token over the whole vocabulary, from the hidden state of the token before.

    Logits are computed again in the backward pass, so that those of a whole batch are never held.

    Args:
        backbone: a causal language model without head.
        tokens: (T,) token ids of N texts, one after the other.
        lengths: (N,) tokens of each.
        given: (N,) how many first tokens of each are only read; the very first always is.
        head: (P, H) hidden states -> (P, V) logits.

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
    return _losses(torch.cat(states), torch.cat(targets), head)


def _losses(states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    def cross_entropy(some: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(head(some).float(), wanted, reduction="none")

    parts = zip(states.split(_TOKENS_AT_ONCE), targets.split(_TOKENS_AT_ONCE), strict=True)
    return torch.cat([checkpoint(cross_entropy, *part, use_reentrant=False) for part in parts])
