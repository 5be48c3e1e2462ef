"""Draws go on as they did."""

import json
import random

import numpy as np
import torch

from recbole_hllm.training.random_states import random_states, restore


def draws():
    return [*torch.rand(3).tolist(), *np.random.rand(3), np.random.randn(), random.random(), random.gauss(0, 1)]


def test_states_come_back_through_json():
    np.random.randn(), random.gauss(0, 1)  # each leaves a second number waiting
    states = json.loads(json.dumps(random_states()))
    expected = draws()
    assert draws() != expected
    restore(states)
    assert draws() == expected
