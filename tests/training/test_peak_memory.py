"""The peak of memory."""

import torch

from recbole_hllm.training.peak_memory import forget_peak_memory


def test_a_gpu_that_nothing_has_used_yet_has_no_peak_to_forget(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    for used in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda used=used: used)
        forget_peak_memory(torch.device("cuda"))
        assert bool(asked) == used
