"""Points of a training, from curve.json or TensorBoard."""

import json

import pytest
from torch.utils.tensorboard import SummaryWriter

from recbole_hllm.report.curves import curve_of


def test_points_of_the_kept_curve(write_table):
    points = curve_of(write_table() / "HLLM", "ndcg@10")
    assert points[1] == {"epoch": 1, "training_seconds": 3.0, "loss": 1.0, "score": pytest.approx(0.06)}
    assert [point["epoch"] for point in points] == [0, 1, 2, 3]


def test_another_metric_has_losses_only(write_table):
    assert {point["score"] for point in curve_of(write_table() / "HLLM", "auc")} == {None}


@pytest.mark.parametrize(
    "text", ["", "{", "7", '{"epoch": 1}', "[1]", '[{"epoch": "x"}]', '[{"epoch": 1, "valid": 3}]']
)
def test_a_damaged_curve_is_none(tmp_path, text):
    (tmp_path / "curve.json").write_text(text)
    assert curve_of(tmp_path, "ndcg@10") == []


def test_numbers_that_are_none(tmp_path):
    point = {"epoch": 0, "loss": float("inf"), "valid": {"ndcg@10": "0.5"}, "training_seconds": True}
    (tmp_path / "curve.json").write_text(json.dumps([point]))
    assert curve_of(tmp_path, "ndcg@10") == [{"epoch": 0, "training_seconds": None, "loss": None, "score": None}]


def written(folder, scores, losses):
    with SummaryWriter(str(folder / "tensorboard")) as events:
        for tag, values in (("valid/ndcg@10", scores), ("train/epoch_loss", losses)):
            for step, value in values.items():
                events.add_scalar(tag, value, step)


def test_runs_of_earlier_versions_have_events(tmp_path):
    written(tmp_path, {0: 0.25, 1: 0.5}, {0: 4.0, 1: 2.0, 2: 1.0})
    points = curve_of(tmp_path, "ndcg@10")
    assert [(one["epoch"], one["loss"], one["score"]) for one in points] == [(0, 4, 0.25), (1, 2, 0.5), (2, 1, None)]


def test_validations_of_steps_are_not_mixed_with_losses_of_epochs(tmp_path):
    written(tmp_path, {100: 0.25, 200: 0.5}, {0: 4.0, 1: 2.0})
    assert [(one["loss"], one["score"]) for one in curve_of(tmp_path, "ndcg@10")] == [(None, 0.25), (None, 0.5)]


def test_no_events_no_curve(tmp_path):
    assert curve_of(tmp_path, "ndcg@10") == []
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1.vm.1.0").write_bytes(b"damaged" * 9)
    assert curve_of(tmp_path, "ndcg@10") == []
