"""ESASRec: what its encoder reads, and its sizes."""

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.errors import ConfigError
from recbole_hllm.nn.ligr import LiGRLayer


def test_items_and_positions_go_through_the_layers(id_model):
    model = id_model("eSASRec", n_layers=2)[0].eval()
    assert [type(layer) for layer in model.layers] == [LiGRLayer, LiGRLayer]
    items = torch.tensor([[3, 5, 3, 0]])
    x = model.item_embedding.weight[items[:, :3]] + model.positions.weight[:3]
    expected = model.layers[1](model.layers[0](x))[:, -1]
    read = Interaction({"item_id_list": items, "item_length": torch.tensor([3])})
    torch.testing.assert_close(model.user_vectors(read), expected)
    torch.testing.assert_close(model.full_sort_predict(read), expected @ model.item_embedding.weight.T)


def test_the_loss_is_sampled_softmax(id_model):
    model, drawn = id_model("eSASRec")[0], [5, 11, 2, 5, 10, 12]
    rows = {"item_id_list": torch.tensor([[2, 5, 0, 0, 0]]), "neg_item_id": torch.tensor([drawn])}
    read = Interaction({"item_id_list": torch.tensor([[2]]), "item_length": torch.tensor([1])})
    logits = model.item_embedding.weight @ model.user_vectors(read)[0]
    expected = -logits[[5, 11, 2, 10, 12]].log_softmax(0)[0]
    assert model.calculate_loss(Interaction(rows)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_heads_that_do_not_divide_the_width(id_model):
    with pytest.raises(ConfigError, match="n_heads: hidden_size 8 cannot be shared equally by 3 heads"):
        id_model("eSASRec", n_heads=3)
