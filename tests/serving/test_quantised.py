"""Vectors in fewer bytes: how far they are from what they were."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.errors import ConfigError
from recbole_hllm.serving.quantised import packed, unpacked

TABLES = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5
).map(torch.tensor)  # fmt: skip


@given(TABLES)
def test_float32_is_the_same_and_others_are_near(vectors):
    assert torch.equal(unpacked("a", packed("a", vectors, "float32")), vectors)
    halves = packed("a", vectors, "bfloat16")
    assert halves["a"].dtype == torch.bfloat16
    torch.testing.assert_close(unpacked("a", halves), vectors, rtol=2**-8, atol=1e-38)
    bytes_ = packed("a", vectors, "int8")
    assert bytes_["a"].dtype == torch.int8 and sorted(bytes_) == ["a", "a.scale"]
    step = vectors.abs().amax(dim=1, keepdim=True) / 127
    assert ((unpacked("a", bytes_) - vectors).abs() <= 0.5001 * step + 1e-37).all()


def test_a_row_of_zeros_stays_one_and_its_neighbours_have_scales_of_their_own():
    vectors = torch.tensor([[0.0, 0.0], [1e-3, -5e-4], [1000.0, 1.0]])
    arrays = packed("items", vectors, "int8")
    assert arrays["items"].tolist() == [[0, 0], [127, -64], [127, 0]]
    assert arrays["items.scale"].shape == (3, 1)
    torch.testing.assert_close(unpacked("items", arrays)[1], vectors[1], rtol=0, atol=4e-6)


def test_another_dtype_is_named():
    with pytest.raises(ConfigError, match="dtype: 'int4' is not one of float32, bfloat16, int8"):
        packed("a", torch.zeros(1, 1), "int4")
