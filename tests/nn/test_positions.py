import pytest
import torch

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.positions import PositionTable


def test_positions_count_from_the_oldest_item():
    table = PositionTable(5, 3, std=1.0)
    assert torch.equal(table(2), table.weight[:2]) and torch.equal(table(5), table.weight)


def test_first_values_have_the_given_spread():
    torch.manual_seed(0)
    assert PositionTable(100, 100, std=0.02).weight.std().item() == pytest.approx(0.02, rel=0.03)


def test_a_longer_history_is_refused():
    with pytest.raises(ModelError, match="a history of 6 items does not fit into the 5 positions.*MAX_ITEM_LIST"):
        PositionTable(5, 3, std=1.0)(6)
