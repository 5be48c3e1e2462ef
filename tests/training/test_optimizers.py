"""Fused steps are the steps of the plain optimizer, but for the last digit."""

import pytest
import torch

from recbole_hllm.training.optimizers import fused


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_a_fused_step_is_the_same_step(kind):
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)) for _ in range(2)]
    plain, quick = (kind([weight], lr=0.1, weight_decay=0.2) for weight in weights)
    assert fused(quick) is quick and quick.param_groups[0]["fused"] and not plain.param_groups[0]["fused"]
    for step in range(4):
        for weight, optimizer in zip(weights, (plain, quick), strict=True):
            weight.grad = torch.cos(torch.arange(12.0, dtype=torch.float64) * (step + 1)).view(3, 4)
            optimizer.step()
    torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype, kind", [(torch.float32, torch.optim.SGD), (torch.complex64, torch.optim.Adam)])
def test_others_stay_as_they_are(dtype, kind):
    optimizer = fused(kind([torch.nn.Parameter(torch.zeros(2, dtype=dtype))], lr=0.1))
    assert not optimizer.param_groups[0].get("fused")
