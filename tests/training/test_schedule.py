"""The learning rate of every step against the formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.errors import ConfigError
from recbole_hllm.training.schedule import build_schedule


def rates(kind, total, warmup_ratio=0.1, start_at_zero=False, steps=None):
    """Rates used by each step, of two groups with base rates 1 and 0.5; checked to be proportional."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.5}], lr=1.0)
    schedule = build_schedule(optimizer, kind, total, warmup_ratio, start_at_zero)
    used = []
    for _ in range(total if steps is None else steps):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == 0.5 * first
        used.append(first)
        optimizer.step()
        schedule.step()
    return used


@pytest.mark.parametrize("kind", ["none", "constant", None])
def test_a_constant_rate_has_three_names(kind):
    assert rates(kind, 3) == [1.0, 1.0, 1.0]


def test_warm_up_and_cosine():
    cosine = [0.5 * (1 + math.cos(math.pi * step / 18)) for step in range(18)]
    assert rates("cosine", 20) == pytest.approx([1 / 2, 1.0, *cosine])


def test_warm_up_of_the_official_code_starts_at_zero():
    cosine = [0.5 * (1 + math.cos(math.pi * (step - 3) / 27)) for step in range(3, 30)]
    assert rates("cosine", 30, start_at_zero=True) == pytest.approx([0, 1 / 3, 2 / 3, *cosine])


def test_warm_up_of_a_fraction_of_steps():
    used = rates("cosine", 25)
    assert used[:4] == pytest.approx([1 / 2.5, 2 / 2.5, 1.0, 0.5 * (1 + math.cos(math.pi * 0.5 / 22.5))])


def test_steps_behind_the_last_have_rate_zero():
    assert rates("cosine", 5, steps=8)[5:] == pytest.approx([0, 0, 0])


def test_constant():
    assert rates("none", 5) == [1.0] * 5


@settings(max_examples=60)
@given(st.integers(1, 80), st.floats(0, 0.99))
def test_every_step_learns_rising_to_the_base_rate_and_falling_after_it(total, ratio):
    used = rates("cosine", total, ratio)
    top = used.index(max(used))
    assert all(0 < rate <= 1 for rate in used)
    assert used[: top + 1] == sorted(used[: top + 1])
    assert used[top:] == sorted(used[top:], reverse=True)


@pytest.mark.parametrize("ratio", [1.0, -0.1])
def test_a_wrong_warm_up_names_its_key(ratio):
    with pytest.raises(ConfigError, match="warmup_ratio"):
        rates("cosine", 10, ratio)
