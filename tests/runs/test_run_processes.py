"""run() in two processes: what one process alone writes, and one clear error where something is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from launched import launch

from recbole_hllm import cli, run
from recbole_hllm.processes import current
from recbole_hllm.storage.files import read_json

# Batches of 3 rows: 5 of 14 users, so that the processes have different numbers of batches.
KEYS = {"epochs": 0, "eval_batch_size": 3, "process_minutes": 1, "log_wandb": False, "item_vector_cache": True}
COMPARED = ("metrics.json", "segments.json", "protocol.json")


def keys_of(settings_of, model, **keys):
    own = settings_of(model)
    return {**own, **{key: value for key, value in KEYS.items() if key != "item_vector_cache"}, **keys}


def runs(*arguments):
    """One process of several runs, one after the other."""
    for model, keys, folder in arguments:
        result = run(model, config_dict=keys, run_dir=folder)
        print(json.dumps([current().rank, result]))


def arrays_of(folder):
    return {
        (file.name, name): values
        for file in sorted(Path(folder).glob("*.npz"))
        for name, values in np.load(file).items()
    }


@pytest.fixture(scope="module")
def both(settings_of, tmp_path_factory):
    """model -> folder of its run in one process, and in two."""
    folder = tmp_path_factory.mktemp("processes")
    rows = {
        "SASRec": keys_of(settings_of, "SASRec", metrics=["Recall", "NDCG", "GAUC", "ItemCoverage", "TailPercentage"],
                          valid_metric="NDCG@10"),
        "HLLM": keys_of(settings_of, "HLLM", eval_args={"split": {"LS": "valid_and_test"}, "mode": "uni2"}),
        "TextKNN": keys_of(settings_of, "TextKNN", eval_batch_size=100),  # one batch: a process has none
        "HLLMRanker": keys_of(settings_of, "HLLMRanker"),
    }  # fmt: skip
    for model, keys in rows.items():
        run(model, config_dict={**keys, "cache_dir": str(folder / "cache-1")}, run_dir=folder / "one" / model)
    cache = {"cache_dir": str(folder / "cache-2")}
    ended = launch(runs, *((model, {**keys, **cache}, folder / "two" / model) for model, keys in rows.items()))
    assert [process.code for process in ended] == [0, 0], ended
    return {model: (folder / "one" / model, folder / "two" / model) for model in rows}, ended


@pytest.mark.parametrize("model", ["SASRec", "HLLM", "TextKNN", "HLLMRanker"])
def test_two_processes_write_what_one_writes(model, both):
    one, two = both[0][model]
    for name in COMPARED:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert {file.name for file in one.iterdir()} == {file.name for file in two.iterdir()}
    first, second = arrays_of(one), arrays_of(two)
    assert first.keys() == second.keys() and len(first) > 0
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
        assert values.dtype == second[name].dtype


def test_all_return_the_same_and_the_first_one_logs(both):
    said = [[json.loads(line) for line in process.out.splitlines()] for process in both[1]]
    assert [rank for rank, _ in said[0]] == [0] * 4 and [rank for rank, _ in said[1]] == [1] * 4
    assert [result for _, result in said[0]] == [result for _, result in said[1]]
    log = (both[0]["HLLM"][1] / "run.log").read_text()
    assert log == "" or "process 1" not in log
