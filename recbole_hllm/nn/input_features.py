"""What may be added to the item vectors at the User LLM's input: calendar time, item id, action (HLLM, section 4.5)."""

import torch
from torch import Tensor, nn

# Sizes of the tables of year, month, day, hour, minute and second.
CALENDAR_SIZES = (2100, 13, 32, 24, 60, 60)
TIME_WIDTH = 512
EMBEDDING_STD = 0.02


def calendar(seconds: Tensor) -> Tensor:
    """UTC year, month, day, hour, minute and second of points in time.

    Args:
        seconds: (...) since 1970-01-01, any dtype; fractions are cut.

    Returns:
        (..., 6) int64; years outside 0..2099 are brought to the nearest of them.
    """
    seconds = torch.floor(seconds).long()
    days, rest = torch.div(seconds, 86400, rounding_mode="floor"), seconds % 86400
    # Counted from 1 March of year 0, so that a leap day is the last of its year, in eras of 400 equal years.
    days = days + 719468
    era, day_of_era = torch.div(days, 146097, rounding_mode="floor"), days % 146097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    month = (shifted_month + 2) % 12 + 1
    year = (year_of_era + era * 400 + (month <= 2)).clamp(0, CALENDAR_SIZES[0] - 1)
    return torch.stack([year, month, day, rest // 3600, rest // 60 % 60, rest % 60], dim=-1)


class TimeFeatures(nn.Module):
    """Points in time -> vectors: an embedding of each part of the date, side by side, and a two-layer perceptron.

    Args:
        out_features: size D of the vectors.
        time_num: how many parts count, from the year on: 4 stops at the hour.
        width: size of each embedding.
    """

    def __init__(self, out_features: int, time_num: int = 6, width: int = TIME_WIDTH):
        super().__init__()
        self.time_num = time_num
        tables = [nn.Embedding(size, width) for size in CALENDAR_SIZES[:time_num]]
        for table in tables:
            nn.init.normal_(table.weight, std=EMBEDDING_STD)
        self.tables = nn.ModuleList(tables)
        self.mlp = nn.Sequential(
            nn.Linear(time_num * width, out_features), nn.SiLU(), nn.Linear(out_features, out_features)
        )

    def forward(self, seconds: Tensor) -> Tensor:
        """(B, S) seconds since 1970 -> (B, S, D)."""
        parts = calendar(seconds)
        return self.mlp(torch.cat([table(parts[..., place]) for place, table in enumerate(self.tables)], dim=-1))


class InputFeatures(nn.Module):
    """The sum of the features that are switched on; what is predicted stays the item vector alone (section 4.5).

    Args:
        out_features: size D of the item vectors.
        n_items: with an item-id embedding, its rows; 0 without.
        n_actions: with an embedding of actions or ratings, its rows, 0 being padding; 0 without.
        time_num: see `TimeFeatures`; 0 without time.
        time_width: see `TimeFeatures`.
    """

    def __init__(
        self,
        out_features: int,
        *,
        n_items: int = 0,
        n_actions: int = 0,
        time_num: int = 0,
        time_width: int = TIME_WIDTH,
    ):
        super().__init__()
        self.item = id_table(n_items, out_features) if n_items else None
        self.action = id_table(n_actions, out_features) if n_actions else None
        self.time = TimeFeatures(out_features, time_num, time_width) if time_num else None

    def forward(
        self, vectors: Tensor, items: Tensor, seconds: Tensor | None = None, actions: Tensor | None = None
    ) -> Tensor:
        """Adds the features to (B, S, D) item vectors.

        Args:
            vectors: (B, S, D).
            items: (B, S) ids.
            seconds: (B, S) since 1970, needed with time.
            actions: (B, S) numbers of the actions, needed with them.
        """
        if self.item is not None:
            vectors = vectors + self.item(items)
        if self.action is not None:
            vectors = vectors + self.action(actions)
        if self.time is not None:
            vectors = vectors + self.time(seconds)
        return vectors


def id_table(rows: int, width: int) -> nn.Embedding:
    """Embeddings of ids, drawn from N(0, 0.02^2); that of id 0, padding, is 0."""
    table = nn.Embedding(rows, width, padding_idx=0)
    with torch.no_grad():
        table.weight[1:].normal_(std=EMBEDDING_STD)
    return table
