"""The head of a ranker: hidden states to the logit of a click."""

import torch
from torch import Tensor, nn


class RankingHead(nn.Module):
    """A perceptron over one vector, or over a user's and an item's, with one output.

    HLLM's paper (arXiv 2409.12740, section 3.3) leaves depth, width and the way two vectors come together open.

    Args:
        width: size D of each vector.
        hidden: sizes of the hidden layers, each followed by a ReLU; [] makes it linear.
        inputs: what it reads of two vectors: ``concat`` both side by side, ``product`` their elementwise product,
            ``both`` the three side by side. None: it reads one vector.
    """

    def __init__(self, width: int, hidden: list[int], inputs: str | None = None):
        super().__init__()
        self.inputs = inputs
        sizes = [width * {None: 1, "concat": 2, "product": 1, "both": 3}[inputs], *hidden]
        layers = [(nn.Linear(before, after), nn.ReLU()) for before, after in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = nn.Sequential(*(layer for pair in layers for layer in pair), nn.Linear(sizes[-1], 1))

    def forward(self, state: Tensor, item: Tensor | None = None) -> Tensor:
        """(..., D) states, and (..., D) items that broadcast with them -> (...) logits."""
        if self.inputs is None:
            return self.layers(state).squeeze(-1)
        state, item = torch.broadcast_tensors(state, item)
        parts = {
            "concat": lambda: (state, item),
            "product": lambda: (state * item,),
            "both": lambda: (state, item, state * item),
        }
        return self.layers(torch.cat(parts[self.inputs](), dim=-1)).squeeze(-1)
