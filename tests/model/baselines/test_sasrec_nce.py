import pytest
import torch
from recbole.model.sequential_recommender import SASRec

from recbole_hllm.errors import ConfigError, ModelError

ROWS = [[3, 5, 3, 9], [2, 0, 0, 0], [7, 4, 6, 0]]
LENGTHS = [4, 1, 3]


def test_the_encoder_is_recboles_sasrec(id_model):
    keys = {"n_layers": 2, "n_heads": 2, "hidden_act": "gelu"}
    model, _ = id_model("SASRecNCE", **keys)
    stock, (train, *_) = id_model("SASRec", train_neg_sample_args=None, **keys)
    assert isinstance(stock, SASRec) and type(stock).__name__ == "SASRec"
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.normal_(std=0.3)
        stock.item_embedding.weight[0] = 0
    names = {"position_embedding": "positions", "trm_encoder": "encoder", "LayerNorm": "norm"}
    weights = {}
    for name, value in stock.state_dict().items():
        part, _, rest = name.partition(".")
        weights[f"{names.get(part, part)}.{rest}"] = value
    model.load_state_dict(weights)
    items, lengths = torch.tensor(ROWS), torch.tensor(LENGTHS)
    expected = stock.eval()(items, lengths)
    users = model.eval().user_vectors({"item_id_list": items, "item_length": lengths})
    torch.testing.assert_close(users, expected, rtol=0, atol=1e-5)


def test_weights_start_as_recboles(id_model):
    model, _ = id_model("SASRecNCE", hidden_size=64, inner_size=256)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm" in name.lower():
            assert (parameter == 1).all(), name
        elif parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name


def test_dropout_of_inputs_and_of_attention(id_model):
    for key in ("hidden_dropout_prob", "attn_dropout_prob"):
        model, _ = id_model("SASRecNCE", **{key: 0.5})
        vectors = torch.randn(2, 4, 8)
        history = type("History", (), {"items": torch.ones(2, 4).long()})
        assert not torch.equal(model.read_history(vectors, history), model.read_history(vectors, history)), key
        model.eval()
        assert torch.equal(model.read_history(vectors, history), model.read_history(vectors, history))


def test_an_unknown_activation(id_model):
    with pytest.raises(ConfigError, match="hidden_act: 'silu' is not one of gelu, relu"):
        id_model("SASRecNCE", hidden_act="silu")


def test_a_row_made_by_hand_with_a_longer_history(id_model):
    model, _ = id_model("SASRecNCE")
    rows = {"item_id_list": torch.ones(1, 5).long(), "item_length": torch.tensor([5])}
    with pytest.raises(ModelError, match="a history of 5 items does not fit into the 4 positions"):
        model.user_vectors(rows)
