"""The recurrence against one step after the other."""

import pytest
import torch

from recbole_hllm.nn.lru import LinearRecurrence, LRUBlock, scan


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_scan_is_the_recurrence(length):
    torch.manual_seed(0)
    inputs = torch.randn(2, length, 4, dtype=torch.complex128)
    factor = torch.randn(4, dtype=torch.complex128)
    state, expected = torch.zeros(2, 4, dtype=torch.complex128), []
    for place in range(length):
        state = factor * state + inputs[:, place]
        expected.append(state)
    torch.testing.assert_close(scan(inputs, factor), torch.stack(expected, dim=1))


def test_layer_against_complex_matrices():
    torch.manual_seed(0)
    layer, x = LinearRecurrence(3), torch.randn(2, 7, 3)
    into, out = layer.into.weight.detach(), layer.out.weight.detach()
    b, shift = torch.complex(into[:6], into[6:]), torch.complex(layer.into.bias[:6], layer.into.bias[6:])
    c = torch.complex(out[:, :6], -out[:, 6:])  # Re(C h) = Re C Re h - Im C Im h
    modulus, phase = (-layer.nu.exp()).exp(), layer.theta.exp()
    state, expected = torch.zeros(2, 6, dtype=torch.complex64), []
    for place in range(7):
        driven = layer.gamma.exp() * (x[:, place].to(b.dtype) @ b.T + shift)
        state = torch.polar(modulus, phase) * state + driven
        expected.append((state @ c.T).real + layer.out.bias)
    torch.testing.assert_close(layer(x), torch.stack(expected, dim=1), rtol=1e-4, atol=1e-5)


def test_first_eigenvalues_lie_in_the_ring():
    torch.manual_seed(0)
    layer = LinearRecurrence(500)
    modulus = (-layer.nu.exp()).exp()
    assert 0.8 <= modulus.min() < 0.81 and 0.985 < modulus.max() <= 0.99
    torch.testing.assert_close(layer.gamma.exp(), (1 - modulus**2).sqrt(), rtol=1e-3, atol=1e-4)


def test_a_block_adds_and_normalises():
    torch.manual_seed(0)
    block, x = LRUBlock(4, 8, 0.5, 0.5).eval(), torch.randn(2, 5, 4)
    read = block.norms[0](x + block.recurrence[0](x))
    inner = torch.nn.functional.gelu(block.feed_forward[0](read))
    torch.testing.assert_close(block(x), block.norms[1](read + block.feed_forward[3](inner)))
    changed = x.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(block(x)[:, :3], block(changed)[:, :3])
