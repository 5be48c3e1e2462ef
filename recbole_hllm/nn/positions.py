"""A learned vector for each place of a history."""

from torch import Tensor, nn

from recbole_hllm.errors import ModelError


class PositionTable(nn.Embedding):
    """Vectors of the positions 0..n-1, the oldest item of a history being at 0.

    Args:
        n_positions: how many there are.
        width: size D of a vector.
        std: standard deviation of the first values.
    """

    def __init__(self, n_positions: int, width: int, std: float):
        super().__init__(n_positions, width)
        nn.init.normal_(self.weight, std=std)

    # What is looked up are the first rows, so their number is all that is asked for.
    def forward(self, length: int) -> Tensor:  # type: ignore[override]
        """(length, D) vectors of the first positions.

        Raises:
            ModelError: there are not so many.
        """
        if length > self.num_embeddings:
            raise ModelError(
                f"a history of {length} items does not fit into the {self.num_embeddings} positions the model was "
                "built with (MAX_ITEM_LIST_LENGTH); keep its last items only"
            )
        return self.weight[:length]
