"""Histories, and what is the same of every user model."""

import torch

from recbole_hllm.nn.user_models.base import Histories, UserModel


def test_times_of_what_comes_next():
    times = torch.tensor([[1.0, 2.0, 5.0], [7.0, 0.0, 0.0]], dtype=torch.float64)
    histories = Histories(
        torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.tensor([3, 1]), times, times.new_tensor([9, 8])
    )
    following = histories.next_times()
    assert following[0].tolist() == [2.0, 5.0, 9.0] and following[1, 0] == 8.0
    assert times[0].tolist() == [1.0, 2.0, 5.0], "those of the items are left alone"
    assert Histories(torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.tensor([1])).next_times() is None


def test_outputs_at_the_last_items():
    histories = Histories(torch.zeros(3, 2, 1), torch.zeros(3, 2), torch.tensor([2, 1, 0]))
    outputs = torch.arange(12.0).reshape(3, 2, 2)
    assert histories.last.tolist() == [1, 0, 0]
    assert histories.at_last(outputs).tolist() == [[2.0, 3.0], [4.0, 5.0], [8.0, 9.0]]


def test_weights_of_a_language_model_lie_elsewhere():
    class Both(UserModel):
        LANGUAGE_MODEL = "llm.backbone"

        def __init__(self):
            super().__init__({})
            self.llm = torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1)})
            self.llm["words"] = torch.nn.Linear(1, 1, bias=False)

    assert list(Both().own_weights()) == ["llm.words.weight"]
    assert torch.equal(UserModel({}).of_items(torch.ones(2)), torch.ones(2)) and not UserModel({}).reads_times
