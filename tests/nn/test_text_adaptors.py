"""Adaptors of text vectors against plain formulas."""

import torch

from recbole_hllm.nn.text_adaptors import SharedMLP, WhiteningMixture


def test_each_form_goes_through_the_same_layers_and_results_are_added():
    torch.manual_seed(0)
    mlp, vectors = SharedMLP(4, 3), torch.randn(5, 8)
    first, _, second = mlp.layers
    expected = sum(
        (form @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
        for form in (vectors[:, :4], vectors[:, 4:])
    )
    torch.testing.assert_close(mlp(vectors), expected)


def mixture(dropout=0.0):
    torch.manual_seed(0)
    made = WhiteningMixture(4, 3, 5, dropout)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


def test_a_mixture_of_shifted_projections():
    made, vectors = mixture().eval(), torch.randn(6, 4)
    for x, found in zip(vectors, made(vectors), strict=True):
        weights = torch.softmax(x @ made.gate, dim=0)
        expected = sum(w * ((x - b) @ m) for w, b, m in zip(weights, made.biases, made.experts, strict=True))
        torch.testing.assert_close(found, expected)


def test_gates_are_noisy_in_training_only():
    made, vectors = mixture(), torch.randn(6, 4)
    assert not torch.equal(made(vectors), made(vectors))
    torch.manual_seed(3)
    found = made(vectors)
    torch.manual_seed(3)
    gates = vectors @ made.gate
    gates = gates + torch.randn_like(gates) * (torch.log1p((vectors @ made.noise).exp()) + 0.01)
    expected = torch.einsum("ne,nh,ehd->nd", gates.softmax(-1), vectors, made.experts)
    expected -= torch.einsum("ne,eh,ehd->nd", gates.softmax(-1), made.biases, made.experts)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_each_experts_own():
    made = mixture(dropout=0.5)
    with torch.no_grad():
        made.gate.zero_(), made.noise.fill_(-1e9)  # gates of no noise: all alike
        made.biases.zero_()
        made.experts[:] = torch.eye(4)[:, :3]
    seen = made(torch.ones(200, 4)) * 5 / 2  # how many of the five experts kept a number
    counts = seen.round()
    torch.testing.assert_close(seen, counts, rtol=0, atol=0.2)
    assert counts.unique().numel() > 3
