"""Preference tower (LEARN, arXiv 2405.03988, section 3.2): content vectors of items -> vectors of preference."""

import torch
from torch import Tensor, nn

from recbole_hllm.nn.positions import PositionTable
from recbole_hllm.nn.precision import unrounded
from recbole_hllm.nn.user_encoder import UserEncoder

INITIAL_STD = 0.02


class CausalTransformer(nn.Module):
    """Layers of BERT's kind under a causal mask. Without positions, only the mask shows the order.

    Args:
        hidden_size, n_layers, n_heads, inner_size: sizes.
        dropout: of layers and attention weights.
        n_positions: rows of a learned position table; 0: none, as in the published code.
    """

    def __init__(
        self, hidden_size: int, n_layers: int, n_heads: int, inner_size: int, dropout: float, n_positions: int = 0
    ):
        super().__init__()
        self.hidden_size = hidden_size
        layer = nn.TransformerEncoderLayer(hidden_size, n_heads, inner_size, dropout, "gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.positions = PositionTable(n_positions, hidden_size, INITIAL_STD) if n_positions else None
        for weight in self.layers.parameters():  # torch starts all layers alike
            if weight.dim() > 1:
                nn.init.normal_(weight, std=INITIAL_STD)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, S, H) -> (B, S, H); place i sees the places up to i. Rows are padded on the right."""
        length = vectors.shape[1]
        inputs = vectors if self.positions is None else vectors + self.positions(length)
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=vectors.device, dtype=inputs.dtype)
        return self.layers(inputs, mask=mask, is_causal=True)


class PreferenceTower(nn.Module):
    """Projection into the reader's width, the reader, and the online projection out of it.

    Args:
        content_width: C of the content vectors.
        reader: (B, S, H) -> (B, S, H) causally.
        output_size: D of the vectors of preference.
    """

    def __init__(self, content_width: int, reader: CausalTransformer | UserEncoder, output_size: int):
        super().__init__()
        self.input_proj = nn.Linear(content_width, reader.hidden_size)
        self.reader = reader
        self.online_proj = nn.Linear(reader.hidden_size, output_size)

    def forward(self, content: Tensor) -> Tensor:
        """(B, S, C) content vectors -> (B, S, D) of each place, from it and those before, not normalised."""
        return self.online_proj(self.reader(unrounded(self.input_proj(content), self.reader)))

    def alone(self, content: Tensor) -> Tensor:
        """(N, C) content vectors -> (N, D), each read as a sequence of its own."""
        return self(content[:, None])[:, 0]


def recency_weights(lengths: Tensor, width: int, alpha: float, beta: float) -> Tensor:
    """(B, width) weights ``log(alpha + i (beta - alpha) / (N - 1))``, over their maximum, of place i of N = lengths.

    The oldest place is 0; a place after the last has weight 0, a place alone 1 (LEARN, version 2, section 3.4).

    Args:
        lengths: (B,) N of each row.
        alpha, beta: above 1, and so is every weight then above 0; larger than alpha, beta favours recent places.
    """
    place = torch.arange(width, device=lengths.device)
    last = (lengths - 1).clamp(min=1)[:, None]
    # A place alone is its own maximum whatever the numbers are.
    share = torch.where(lengths[:, None] > 1, place / last, 1.0)
    weights = torch.log(alpha + share * (beta - alpha)) / torch.log(torch.tensor(float(max(alpha, beta))))
    return weights.masked_fill(place >= lengths[:, None], 0.0)


def sample_places(weights: Tensor, number: int | None) -> Tensor:
    """(B, S) weights, 0 for what cannot be drawn -> (B, S) bool, at most ``number`` of each row, drawn one after the
    other without replacement with chances in proportion to the weights; all of them with None."""
    available = weights > 0
    if number is None or number >= weights.shape[1]:
        return available
    # The largest of log w + Gumbel noise are such a draw.
    noise = -torch.empty_like(weights).exponential_().log()
    drawn = (weights.log() + noise).topk(number).indices
    return torch.zeros_like(available).scatter_(1, drawn, True) & available


def last_places(lengths: Tensor, width: int, number: int | None) -> Tensor:
    """(B, width) bool, the last ``number`` of the first ``lengths`` (B,) places of each row; all of them with None."""
    place = torch.arange(width, device=lengths.device)
    last = place < lengths[:, None]
    return last if number is None else last & (place >= lengths[:, None] - number)
