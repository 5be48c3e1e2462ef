"""The filter against a convolution, number by number."""

import numpy as np
import pytest
import torch

from recbole_hllm.nn.frequency_filter import FilterBlock, FilterLayer


@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_equals_a_circular_convolution(length):
    torch.manual_seed(0)
    layer, x = FilterLayer(length, 3), torch.randn(2, length, 3)
    with torch.no_grad():
        layer.filter.normal_()
        layer.filter[0, :, 1] = 0  # what a real signal has at frequency 0
        if length % 2 == 0:
            layer.filter[-1, :, 1] = 0
    weights = torch.view_as_complex(layer.filter.detach()).numpy().astype(np.complex128)
    kernel = np.fft.irfft(weights, n=length, axis=0)  # (S, D)
    found = layer(x).detach().numpy()
    for row in range(2):
        for place in range(length):
            expected = sum(kernel[(place - other) % length] * x[row, other].numpy() for other in range(length))
            np.testing.assert_allclose(found[row, place], expected, rtol=1e-4, atol=1e-5)


def test_a_block_adds_and_normalises():
    torch.manual_seed(0)
    block, x = FilterBlock(5, 4, 8, 0.5).eval(), torch.randn(2, 5, 4)
    read = block.norms[0](x + block.filter[0](x))
    inner = torch.nn.functional.gelu(block.feed_forward[0](read))
    torch.testing.assert_close(block(x), block.norms[1](read + block.feed_forward[2](inner)))
