"""LEARN's user model: the user tower, and the item tower that makes scored vectors of content."""

from typing import Any

from torch import Tensor

from recbole_hllm.nn.preference import CausalTransformer, PreferenceTower
from recbole_hllm.nn.user_models.base import Histories, UserModel


class PreferenceUser(UserModel):
    """LEARN's towers (arXiv 2405.03988, section 3.2) with a transformer from scratch as preference module.

    Args:
        content_width: C of the content vectors, which histories hold.
        output_size: D of the vectors of users and items.
        item_tower: whether items have a tower: ``shared`` with users, ``own``, or ``none`` (scored as they are).
        reader: sizes of `CausalTransformer`, its dropout left out.
    """

    def __init__(self, content_width: int, output_size: int, item_tower: str, reader: dict[str, Any]) -> None:
        super().__init__(
            dict(content_width=content_width, output_size=output_size, item_tower=item_tower, reader=reader)
        )
        self.user_tower = self._tower(content_width, output_size, reader)
        self.own_item_tower: PreferenceTower | None = None
        if item_tower == "own":
            self.own_item_tower = self._tower(content_width, output_size, reader)

    def _tower(self, content_width: int, output_size: int, reader: dict[str, Any]) -> PreferenceTower:
        return PreferenceTower(content_width, CausalTransformer(**reader, dropout=0.0), output_size)

    def forward(self, histories: Histories) -> Tensor:
        """(B, D) vectors of the users, not normalised."""
        return histories.at_last(self.user_tower(histories.vectors))

    def of_items(self, content: Tensor) -> Tensor:
        """(N, C) content vectors -> (N, D) vectors of items read alone."""
        if self.settings["item_tower"] == "none":
            return content
        tower = self.own_item_tower or self.user_tower
        return tower.alone(content)
