"""Negatives that do not fit into memory are refused with one error, before it is full."""

import pytest
import torch

from recbole_hllm import run
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base import next_item
from recbole_hllm.model.base.further_negatives import check_room
from recbole_hllm.runs.plan import plan


def test_a_negative_needs_its_id_its_vector_and_a_gradient():
    check_room(1000, 1000, 50, 1000 * (32 + 4 * 2 * 50))
    check_room(1000, 30, 50, 1000 * 32 + 30 * 4 * 2 * 50)
    with pytest.raises(ConfigError, match="the 1,000 negatives of a step need 0.41 MiB .*take fewer num_negatives"):
        check_room(1000, 1000, 50, 1000 * (32 + 4 * 2 * 50) - 1)


@pytest.mark.parametrize("model", ["SASRecNCE", "HLLM", "HLLMRanker"])
def test_a_step_with_too_many_is_refused_before_it(settings_of, tmp_path, model, monkeypatch):
    seen = []
    monkeypatch.setattr(next_item, "free_memory", lambda device: seen.append(device) or 2500.0)
    keys = {**settings_of(model), "num_negatives": 9}
    run(model, config_dict={**keys, "epochs": 1}, run_dir=tmp_path / "fits")
    assert len(seen) == 1, "once, and not in each step"
    with pytest.raises(ConfigError, match="the 200 negatives of a step need 0.0. MiB at least, and 2.44 KiB are free"):
        run(model, config_dict={**keys, "num_negatives": 200}, run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    "model, keys",
    [
        ("SASRecNCE", {"num_negatives": 10**14}),
        ("SASRecNCE", {"num_negatives": 10**14, "worker": 1}),
        ("HLLM", {"num_negatives": 10**14}),
        ("HLLM", {"num_negatives": 10**12, "negatives": "per_position"}),
        ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 10**13}}),
    ],
)
def test_what_the_machine_has_no_memory_for(settings_of, tmp_path, model, keys):
    with pytest.raises(ConfigError, match=r"training does not fit into memory \(.*to allocate.*\); take a smaller"):
        run(model, config_dict={**settings_of(model), **keys}, run_dir=tmp_path / "run")


def test_a_plan_says_so(settings_of):
    with pytest.raises(ConfigError, match="training does not fit into memory"):
        plan("SASRecNCE", config_dict={**settings_of("SASRecNCE"), "num_negatives": 10**14})


def test_what_torch_has_no_memory_for(settings_of, tmp_path, monkeypatch):
    """Also in the first batch of a model of RecBole's, where other errors are taken for wrong keys."""
    from recbole.model.sequential_recommender import GRU4Rec

    monkeypatch.setattr(GRU4Rec, "calculate_loss", lambda self, rows: torch.empty(10**15))
    with pytest.raises(ConfigError, match="training does not fit into memory .*allocate memory: you tried to allocate"):
        run("GRU4Rec", config_dict=settings_of("GRU4Rec"), run_dir=tmp_path / "run")
