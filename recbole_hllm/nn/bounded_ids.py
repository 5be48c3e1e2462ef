"""An item's id beside its text: a learned correction of the text's vector, whose size has a bound."""

from torch import Tensor, nn


class BoundedIds(nn.Module):
    """Adds to an item's vector one of its id, at most so long as a share of the vector (after arXiv 2507.19473).

    With ``e`` the row of an item's id and ``b`` the bound, a vector v becomes ``v + |v| e min(1, b / |e|)``, at most an
    angle of arcsin b away where b < 1. Rows start at 0, so that all begins with the vectors as they are.

    Args:
        counts: (n_items,) how often each item stands in the training data, the padding item 0 included.
        width: D of a vector.
        bound: b.
        min_count: items that stand there less often keep the vectors they have.
    """

    seen: Tensor

    def __init__(self, counts: Tensor, width: int, bound: float, min_count: int = 1) -> None:
        super().__init__()
        self.bound = bound
        self.rows = nn.Embedding(len(counts), width, padding_idx=0)
        nn.init.zeros_(self.rows.weight)
        # Not kept in a checkpoint: it is what the training data say.
        self.register_buffer("seen", counts >= max(min_count, 1), persistent=False)

    def forward(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """(N,) ids of real items and (N, D) their vectors -> (N, D)."""
        rows = self.rows(ids)
        # Where the row is short enough its length has no gradient, as the bound divides itself.
        share = self.bound / rows.norm(dim=-1, keepdim=True).clamp(min=self.bound)
        added = rows * (share * self.seen[ids, None])
        return vectors + vectors.norm(dim=-1, keepdim=True) * added
