import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.nn.preference import CausalTransformer, PreferenceTower, recency_weights, sample_places
from recbole_hllm.nn.user_encoder import UserEncoder


@pytest.fixture(params=["scratch", "positions", "llm"])
def tower(request, tiny):
    torch.manual_seed(1)
    if request.param == "llm":
        reader = UserEncoder(tiny("llama"))
    else:
        reader = CausalTransformer(16, 2, 4, 32, 0.1, n_positions=8 if request.param == "positions" else 0)
    return PreferenceTower(5, reader, 3).eval()


def test_a_later_item_never_moves_an_earlier_vector(tower):
    content = torch.randn(2, 6, 5)
    before = tower(content)
    content[:, 4] += 1
    after = tower(content)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert (before[:, 4:] - after[:, 4:]).abs().min() > 0


def test_alone_is_a_sequence_of_one(tower):
    content = torch.randn(4, 5)
    expected = torch.cat([tower(one[None, None])[0] for one in content])
    torch.testing.assert_close(tower.alone(content), expected)


def test_layers_are_berts():
    """The encoder against attention and feed-forward written out, layer norms behind each."""
    torch.manual_seed(0)
    reader = CausalTransformer(8, 1, 2, 12, 0.5).eval()
    (layer,) = reader.layers.layers
    inputs = torch.randn(3, 5, 8)
    query, key, value = (inputs @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).chunk(3, dim=-1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / 2
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ value[..., head])
    hidden = layer.norm1(inputs + layer.self_attn.out_proj(torch.cat(heads, dim=-1)))
    hidden = layer.norm2(hidden + layer.linear2(torch.nn.functional.gelu(layer.linear1(hidden))))
    torch.testing.assert_close(reader(inputs), hidden, rtol=1e-4, atol=1e-5)


def test_layers_start_different():
    first, second = CausalTransformer(8, 2, 2, 12, 0.0).layers.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert not torch.equal(first.self_attn.in_proj_weight, second.self_attn.in_proj_weight)


@given(st.integers(1, 30), st.floats(1.01, 50), st.floats(0, 1e5))
def test_recency_weights_are_the_papers(length, alpha, more):
    beta = alpha + more
    weights = recency_weights(torch.tensor([length]), length + 2, alpha, beta)[0].tolist()
    plain = [math.log(alpha + i * (beta - alpha) / (length - 1)) for i in range(length)] if length > 1 else [1.0]
    np.testing.assert_allclose(weights[:length], [one / max(plain) for one in plain], rtol=1e-3, atol=1e-5)
    assert weights[length:] == [0.0, 0.0]


def test_places_are_drawn_in_proportion_to_their_weights():
    """First of one draw: w / sum; both of two: w1 w2 (1 / (s - w1) + 1 / (s - w2)) / s."""
    torch.manual_seed(3)
    weights = torch.tensor([1.0, 2.0, 3.0, 0.0])
    one = sample_places(weights.expand(20_000, 4), 1).float().mean(0)
    np.testing.assert_allclose(one, [1 / 6, 2 / 6, 3 / 6, 0], atol=0.015)
    two = sample_places(weights.expand(20_000, 4), 2)
    pairs = {pair: (two[:, pair[0]] & two[:, pair[1]]).float().mean().item() for pair in ((0, 1), (0, 2), (1, 2))}
    for (i, j), share in pairs.items():
        wi, wj = weights[i].item(), weights[j].item()
        assert share == pytest.approx(wi * wj * (1 / (6 - wi) + 1 / (6 - wj)) / 6, abs=0.015)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.one_of(st.none(), st.integers(1, 8)))
def test_as_many_places_as_there_are(lengths, number):
    weights = (torch.arange(6) < torch.tensor(lengths)[:, None]).float()
    drawn = sample_places(weights, number)
    assert not (drawn & (weights == 0)).any()
    assert drawn.sum(1).tolist() == [length if number is None else min(length, number) for length in lengths]
