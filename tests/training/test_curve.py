"""A run's curve, and what its best weights had cost."""

import json

import pytest

from recbole_hllm import run
from recbole_hllm.training.curve import cost_of_best


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def whole(settings_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve") / "run"
    result = run("HLLM", config_dict={**settings_of("HLLM"), "epochs": 3, "scheduler": "none"}, run_dir=folder)
    return result, folder


def test_a_curve_has_each_validation_and_the_cost_so_far(whole):
    result, folder = whole
    curve, costs = read(folder, "curve.json"), read(folder, "costs.json")
    assert [point["epoch"] for point in curve] == [0, 1, 2]
    assert all(point["loss"] > 0 for point in curve)
    best = max(curve, key=lambda point: point["valid"]["mrr@10"])
    assert best["best"] and best["valid"] == result["best_valid_result"] and best["epoch"] == costs["best_epoch"]
    for cost in ("training_seconds", "item_tokens", "flops"):
        values = [point[cost] for point in curve]
        assert 0 < values[0] < values[1] < values[2] == costs[cost]
    assert (costs["seconds_to_best"], costs["item_tokens_to_best"], costs["flops_to_best"]) == (
        best["training_seconds"], best["item_tokens"], best["flops"],
    )  # fmt: skip
    rates = costs["throughput"]
    assert costs["item_tokens"] == pytest.approx(rates["item_tokens_per_second"] * rates["seconds"], rel=0.02)


def test_a_run_that_went_on_has_the_cost_of_both_parts(whole, settings_of, tmp_path):
    settings = {**settings_of("HLLM"), "scheduler": "none"}
    run("HLLM", config_dict={**settings, "epochs": 1}, run_dir=tmp_path / "run")
    run("HLLM", config_dict={"epochs": 3, "resume": True, "use_gpu": False}, run_dir=tmp_path / "run")
    exact = ("epoch", "steps", "item_tokens", "flops", "valid", "best")
    curves = [read(folder, "curve.json") for folder in (whole[1], tmp_path / "run")]
    one, two = ([{name: point[name] for name in exact} for point in curve] for curve in curves)
    assert one == two
    assert read(tmp_path / "run", "costs.json")["flops_to_best"] == read(whole[1], "costs.json")["flops_to_best"]


@pytest.mark.parametrize(
    "keys", [{"eval_args": {"split": {"LS": "test_only"}, "order": "TO", "mode": "full"}}, {"eval_step": 0}]
)
def test_without_validation_all_of_the_training_was_needed(settings_of, tmp_path, keys):
    run("SASRec", config_dict={**settings_of("SASRec"), **keys}, run_dir=tmp_path / "run")
    costs = read(tmp_path / "run", "costs.json")
    assert read(tmp_path / "run", "curve.json") == []
    assert costs["seconds_to_best"] == costs["training_seconds"] > 0 and costs["flops_to_best"] == costs["flops"] > 0
    assert costs["item_tokens_to_best"] is None


def test_what_is_not_known_is_none():
    point = {"best": False, "training_seconds": 3.0, "item_tokens": 5.0, "flops": 7.0}
    nothing = {"seconds_to_best": None, "item_tokens_to_best": None, "flops_to_best": None}
    assert cost_of_best([point], {"training_seconds": 9.0}) == nothing
    reached = [{**point, "best": True}, {**point, "best": True, "flops": 8.0}, {**point, "flops": 9.0}]
    assert cost_of_best(reached, {})["flops_to_best"] == 8.0
