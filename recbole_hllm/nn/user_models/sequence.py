"""User models that read vectors of items with layers of their own: SASRec, eSASRec, HSTU, LRURec, FMLP-Rec."""

import torch
from torch import Tensor, nn

from recbole_hllm.nn.frequency_filter import FilterBlock
from recbole_hllm.nn.hstu import HSTUBlock, time_buckets
from recbole_hllm.nn.ligr import LiGRLayer
from recbole_hllm.nn.lru import LRUBlock
from recbole_hllm.nn.positions import PositionTable
from recbole_hllm.nn.post_norm import PostNormEncoder
from recbole_hllm.nn.user_models.base import Histories, UserModel

# Of first values, which weights that are loaded take the place of.
_STD = 0.02


class SASRecUser(UserModel):
    """SASRec's encoder (arXiv 1808.09781).

    Args:
        width: size D of the vectors.
        length: longest history.
        n_layers, n_heads, inner_size, activation, eps: as of `PostNormEncoder`.
    """

    def __init__(
        self, width: int, length: int, n_layers: int, n_heads: int, inner_size: int, activation: str, eps: float
    ) -> None:
        layers = dict(n_layers=n_layers, n_heads=n_heads, inner_size=inner_size, activation=activation, eps=eps)
        super().__init__(dict(width=width, length=length, **layers))
        self.positions = PositionTable(length, width, _STD)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.encoder = PostNormEncoder(n_layers, width, n_heads, inner_size, activation, eps)

    def forward(self, histories: Histories) -> Tensor:
        """(B, D) vectors of the users, not normalised."""
        x = histories.vectors
        return histories.at_last(self.encoder(self.norm(x + self.positions(x.shape[1]))))


class LiGRUser(UserModel):
    """eSASRec's encoder (arXiv 2508.06450).

    Args:
        width: size D of the vectors.
        length: longest history.
        n_layers, n_heads, inner_size: as of `LiGRLayer`.
    """

    def __init__(self, width: int, length: int, n_layers: int, n_heads: int, inner_size: int) -> None:
        super().__init__(dict(width=width, length=length, n_layers=n_layers, n_heads=n_heads, inner_size=inner_size))
        self.positions = PositionTable(length, width, _STD)
        self.layers = nn.Sequential(*(LiGRLayer(width, n_heads, inner_size, 0.0, 0.0) for _ in range(n_layers)))

    def forward(self, histories: Histories) -> Tensor:
        """(B, D) vectors of the users, not normalised."""
        x = histories.vectors
        return histories.at_last(self.layers(x + self.positions(x.shape[1])))


class HSTUUser(UserModel):
    """HSTU (arXiv 2402.17152), as its authors wrote it, which looks at times, or as HLLM's authors changed it.

    Args:
        width: size D of the vectors.
        length: longest history.
        n_layers, n_heads: of the blocks.
        with_times: whether there is a bias for distance and time, and inputs are multiplied by the square root of D.
    """

    def __init__(self, width: int, length: int, n_layers: int, n_heads: int, with_times: bool) -> None:
        super().__init__(dict(width=width, length=length, n_layers=n_layers, n_heads=n_heads, with_times=with_times))
        self.scale = width**0.5 if with_times else 1.0
        self.positions = PositionTable(length, width, _STD)
        self.blocks = nn.ModuleList(
            HSTUBlock(width, n_heads, length, 0.0, relative_bias=with_times) for _ in range(n_layers)
        )

    @property
    def reads_times(self) -> bool:
        """Whether these settings need ``times`` and ``at``."""
        return self.settings["with_times"]

    def forward(self, histories: Histories) -> Tensor:
        """(B, D) vectors of the users, not normalised."""
        x = histories.vectors * self.scale + self.positions(histories.vectors.shape[1])
        following, buckets = histories.next_times(), None
        if self.reads_times:
            assert histories.times is not None and following is not None, "whoever calls gives times"
            buckets = time_buckets(histories.times, following)
        for block in self.blocks:
            x = block(x, buckets)
        return histories.at_last(x)


class LRUUser(UserModel):
    """LRURec's blocks (arXiv 2310.02367): the last number of an item's vector is its bias, that of a user's is 1.

    Args:
        width: size D of the vectors without the bias.
        n_layers, inner_size: of the blocks.
    """

    def __init__(self, width: int, n_layers: int, inner_size: int) -> None:
        super().__init__(dict(width=width, n_layers=n_layers, inner_size=inner_size))
        self.input = nn.Sequential(nn.Identity(), nn.LayerNorm(width))
        self.blocks = nn.Sequential(*(LRUBlock(width, inner_size, 0.0, 0.0) for _ in range(n_layers)))

    def forward(self, histories: Histories) -> Tensor:
        """(B, D + 1) vectors of the users, not normalised."""
        read = histories.at_last(self.blocks(self.input(histories.vectors[..., :-1])))
        return torch.cat([read, torch.ones_like(read[:, :1])], dim=-1)


class FilterUser(UserModel):
    """FMLP-Rec's filters (arXiv 2202.13556), which read rows of one length, padded on the left.

    Args:
        width: size D of the vectors.
        length: of every row.
        n_layers, inner_size: of the blocks.
    """

    def __init__(self, width: int, length: int, n_layers: int, inner_size: int) -> None:
        super().__init__(dict(width=width, length=length, n_layers=n_layers, inner_size=inner_size))
        self.length = length
        self.positions = PositionTable(length, width, _STD)
        self.input = nn.Sequential(nn.LayerNorm(width), nn.Identity())
        self.blocks = nn.Sequential(*(FilterBlock(length, width, inner_size, 0.0) for _ in range(n_layers)))

    def forward(self, histories: Histories) -> Tensor:
        """(B, D) vectors of the users, not normalised."""
        vectors, rows = histories.vectors, torch.arange(len(histories.lengths), device=histories.lengths.device)
        place = histories.lengths[:, None] - self.length + torch.arange(self.length, device=rows.device)
        aligned = vectors[rows[:, None], place.clamp(0, vectors.shape[1] - 1)] * (place >= 0)[..., None]
        return self.blocks(self.input(aligned + self.positions(self.length)))[:, -1]
