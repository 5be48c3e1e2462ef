"""Whitening as a module, and the head above it, against NumPy and plain formulas."""

import numpy as np
import pytest
import torch

from recbole_hllm.nn.item_encoder import ItemEncoder, StoredItemVectors
from recbole_hllm.nn.item_head import METHODS, Whitening, item_head


def vectors(n=400, width=6, seed=0):
    random = np.random.default_rng(seed)
    return (random.normal(size=(n, width)) @ random.normal(size=(width, width)) + 3).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_whitened_vectors_have_mean_0_and_covariance_1(method):
    whitening = Whitening(6, method)
    torch.testing.assert_close(whitening(torch.from_numpy(vectors())), torch.from_numpy(vectors()))
    whitening.fit(vectors())
    white = whitening(torch.from_numpy(vectors())).double().numpy()
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=2e-3)
    assert whitening.items == 400 and not list(whitening.parameters())


def test_zca_is_the_plain_formula():
    whitening, of = Whitening(6, "zca"), vectors().astype(np.float64)
    whitening.fit(of)
    covariance = (of - of.mean(0)).T @ (of - of.mean(0)) / len(of)
    values, directions = np.linalg.eigh(covariance)
    root = directions @ np.diag((values + 1e-5 * values.mean()) ** -0.5) @ directions.T
    found = whitening(torch.from_numpy(vectors(seed=1))).numpy()
    np.testing.assert_allclose(found, (vectors(seed=1) - of.mean(0)) @ root, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_items_than_numbers(method):
    whitening = Whitening(16, method)
    whitening.fit(vectors(n=4, width=16))
    white = whitening(torch.from_numpy(vectors(n=4, width=16))).double().numpy()
    assert np.isfinite(white).all()
    # Of rank 3: three directions of variance 1, and nothing in all others.
    variances = np.linalg.eigvalsh(np.cov(white.T, bias=True))[::-1]
    np.testing.assert_allclose(variances[:3], 1, atol=2e-3)
    np.testing.assert_allclose(variances[3:], 0, atol=2e-3)


def test_autocast_does_not_round_what_is_whitened():
    whitening = Whitening(6, "zca")
    whitening.fit(vectors())
    exact = whitening(torch.from_numpy(vectors()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whitening(torch.from_numpy(vectors())), exact)


def test_a_checkpoint_has_the_statistics():
    one, other = Whitening(6, "zca"), Whitening(6, "zca")
    one.fit(vectors())
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(torch.from_numpy(vectors())), one(torch.from_numpy(vectors()))) and other.items == 400


def test_heads():
    assert isinstance(item_head(4, 4), torch.nn.Identity)
    assert item_head(4, 3).weight.shape == (3, 4)
    head, x = item_head(4, 4, hidden=5), torch.randn(7, 4)
    first, second = head[0], head[2]
    inner = x @ first.weight.T + first.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(head(x), inner @ second.weight.T + second.bias)
    assert first.weight.shape == (5, 4) and second.weight.shape == (4, 5)


def test_an_encoder_whitens_before_its_head(tiny):
    keys = {"item_emb_token_n": 0, "out_features": 3, "whitening": "zca", "head_hidden": 5, "max_text_length": 8}
    encoder = ItemEncoder(tiny("bert"), **keys).eval()
    tokens, lengths = torch.arange(3, 25), torch.tensor([3, 6, 4, 1, 8])
    pooled = encoder.pooled(tokens, lengths).detach()
    encoder.whitening.fit(pooled.numpy())
    expected = encoder.projection((pooled - encoder.whitening.mean) @ encoder.whitening.matrix)
    torch.testing.assert_close(encoder(tokens, lengths), expected)


def test_stored_vectors_are_whitened_once_and_again_after_a_checkpoint(monkeypatch):
    whitening, calls = Whitening(6, "zca"), []
    whitening.fit(vectors())
    stored = StoredItemVectors(vectors(), torch.nn.Identity(), "00", whitening)
    ids = torch.tensor([5, 9, 5])
    expected = whitening(torch.from_numpy(vectors()[[5, 9, 5]]))
    whitening.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        torch.testing.assert_close(stored(ids), expected)
    assert len(calls) == 1
    state = stored.state_dict() | {"whitening.mean": torch.zeros(6), "whitening.matrix": 2 * torch.eye(6)}
    stored.load_state_dict(state)
    torch.testing.assert_close(stored(ids), 2 * torch.from_numpy(vectors()[[5, 9, 5]]))
