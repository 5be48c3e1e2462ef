"""LRURec: the bias of an item, and what the loss compares."""

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError

READ = {"item_id_list": torch.tensor([[3, 5, 3, 9]]), "item_length": torch.tensor([4])}


def test_the_score_is_a_product_and_a_bias(id_model):
    model = id_model("LRURec")[0].eval()
    with torch.no_grad():
        model.item_embedding.weight[1:].normal_()
    table = model.item_embedding.weight
    encoded = model.blocks(model.input(table[READ["item_id_list"], :8]))[0, -1]
    expected = table[:, :8] @ encoded + table[:, 8]
    torch.testing.assert_close(model.full_sort_predict(Interaction(READ))[0], expected)


def test_the_loss_is_over_the_whole_catalogue(id_model):
    model = id_model("LRURec", recurrent_dropout_prob=0.0)[0]
    windows = torch.tensor([[3, 5, 3, 9, 1], [2, 8, 0, 0, 0]])
    rows = Interaction({"item_id_list": windows, "neg_item_id": torch.arange(1, 13)[None]})
    table, losses = model.item_embedding.weight, []
    for place, target in ((0, 5), (1, 3), (2, 9), (3, 1)):
        encoded = model.blocks(model.input(table[windows[:1, : place + 1], :8]))[0, -1]
        losses.append(-(table[1:, :8] @ encoded + table[1:, 8]).log_softmax(0)[target - 1])
    encoded = model.blocks(model.input(table[windows[1:, :1], :8]))[0, -1]
    losses.append(-(table[1:, :8] @ encoded + table[1:, 8]).log_softmax(0)[8 - 1])
    assert model.calculate_loss(rows).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_cosines_are_refused(id_model):
    with pytest.raises(ConfigError, match="similarity: 'cosine' is not one of dot"):
        id_model("LRURec", similarity="cosine")
