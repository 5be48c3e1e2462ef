"""The transformer in plain torch computes what RecBole's does, under the same names."""

import pytest
import torch
from recbole.model.layers import TransformerEncoder

from recbole_hllm.nn.post_norm import ACTIVATIONS, PostNormEncoder


def both(activation="gelu", eps=1e-3, n_layers=2):
    """RecBole's with weights far from its first ones, and ours with the same."""
    sizes = {"n_layers": n_layers, "n_heads": 2, "hidden_size": 8, "inner_size": 12, "layer_norm_eps": eps}
    theirs = TransformerEncoder(**sizes, hidden_act=activation, hidden_dropout_prob=0.5, attn_dropout_prob=0.5).eval()
    torch.manual_seed(0)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    ours = PostNormEncoder(n_layers, 8, 2, 12, activation, eps)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "relu", "swish", "tanh", "sigmoid"])
def test_real_places_are_those_of_recboles_encoder(activation):
    theirs, ours = both(activation)
    lengths, x = torch.tensor([5, 3, 1]), torch.randn(3, 5, 8)
    real = torch.arange(5) < lengths[:, None]
    causal = torch.ones(5, 5).tril().bool()
    mask = torch.where(real[:, None, None] & causal, 0.0, -10000.0)
    wanted = theirs(x, mask, output_all_encoded_layers=False)[-1]
    torch.testing.assert_close(ours(x)[real], wanted[real], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_no_place_sees_a_later_one():
    ours = both()[1]
    x = torch.randn(2, 4, 8)
    torch.testing.assert_close(ours(x)[:, :3], ours(x[:, :3]), rtol=1e-5, atol=1e-6)


def test_recboles_activations_are_known():
    from recbole.model.layers import FeedForward

    named = FeedForward(2, 2, 0.0, "gelu", 1e-5).get_hidden_act
    x = torch.linspace(-3, 3, 7)
    for name, ours in ACTIVATIONS.items():
        torch.testing.assert_close(ours(x), named(name)(x))
