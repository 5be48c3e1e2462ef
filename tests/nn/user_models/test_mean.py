"""The mean of what is read."""

import torch

from recbole_hllm.nn.user_models.base import Histories
from recbole_hllm.nn.user_models.mean import MeanUser


def test_the_mean_is_of_real_items():
    vectors = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 5.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    found = MeanUser()(Histories(vectors, torch.zeros(3, 2), torch.tensor([2, 1, 0])))
    assert found.tolist() == [[2.0, 4.0], [5.0, 5.0], [0.0, 0.0]]
    assert MeanUser.build({}).own_weights() == {}
