"""How long one user waits."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_hllm import run
from recbole_hllm.training import latency
from recbole_hllm.training.latency import LEAST, USERS, user_latency


class Trainer:
    labelled = False

    def __init__(self, waits):
        self.waits, self.rows = list(waits), []

    def scores(self, loader, rows):
        self.rows.append(int(*rows))
        time.sleep(self.waits.pop(0))
        return torch.zeros(1, 4)


def loader(n_rows):
    return SimpleNamespace(_dataset=range(n_rows))


def test_the_median_without_the_first():
    trainer = Trainer([0.2, 0.01, 0.03, 0.1])
    assert 30 <= user_latency(trainer, loader(3)) < 100
    assert trainer.rows == [0, 0, 1, 2]


def test_users_at_equal_distances():
    trainer = Trainer([0.0] * (USERS + 1))
    user_latency(trainer, loader(1000))
    assert trainer.rows[1:] == np.linspace(0, 999, USERS).astype(int).tolist()


def test_a_slow_model_is_measured_for_few_users(monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    trainer = Trainer([0.01] * 40)
    assert user_latency(trainer, loader(1000)) >= 10
    assert len(trainer.rows) == LEAST + 1


def test_no_lists_no_latency():
    assert user_latency(Trainer([]), None) is None
    assert user_latency(SimpleNamespace(labelled=True), loader(3)) is None


@pytest.mark.parametrize("model", ["SASRec", "BPR", "Markov"])
def test_a_run_measures_it(settings_of, tmp_path, model):
    run(model, config_dict={**settings_of(model), "epochs": 1}, run_dir=tmp_path / "run")
    costs = json.loads((tmp_path / "run" / "costs.json").read_text())
    assert 0 < costs["user_latency_ms"] < 10_000 and costs["users_per_second"] > 0
    assert costs["disk_bytes"] == sum(file.stat().st_size for file in (tmp_path / "run" / "best").iterdir()) > 0
    assert costs["users_per_second"] == pytest.approx(14 / costs["scoring_seconds"], rel=0.05)


def test_labelled_rows_have_no_lists(settings_of, tmp_path):
    run("LEARNScorer", config_dict={**settings_of("LEARNScorer"), "epochs": 1}, run_dir=tmp_path / "run")
    costs = json.loads((tmp_path / "run" / "costs.json").read_text())
    assert costs["user_latency_ms"] is None and costs["users_per_second"] is None and costs["flops"] > 0
