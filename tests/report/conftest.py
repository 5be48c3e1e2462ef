"""Folders of tables, written without any training."""

import copy
import json

import numpy as np
import pytest
import yaml

USERS = 40
# Names and texts that a format would read as more than text.
HOSTILE = '<script>alert(1)</script> & "50%" $x_1$ {a}^~#|\\ `b` *c* [d]'


def metrics_of(ranks):
    """recall and ndcg at 10 of one target for each user, by their definitions."""
    found = ranks <= 10
    return {
        "recall@10": round(float(found.mean()), 4),
        "ndcg@10": round(float(np.where(found, 1 / np.log2(ranks + 1), 0).mean()), 4),
    }


def _row(name, ranks, seconds, **further):
    result = metrics_of(ranks)
    halves = [{"segment": label, "targets": 20, **metrics_of(ranks[part])} for label, part in
              (("0-9", slice(0, 20)), (">= 10", slice(20, 40)))]  # fmt: skip
    costs = {
        "parameters_total": 1000, "parameters_trained": 900, "parameters_inference": int(100 * seconds) + 1,
        "epochs": 3,
        "converged": True, "stop_reason": "early stopping", "preparation_seconds": 1.0, "training_seconds": 2 * seconds,
        "evaluation_seconds": 0.5, "peak_memory_bytes": int(1e9 + seconds), "seconds_to_best": seconds,
        "item_tokens_to_best": None, "flops_to_best": seconds * 1e9, "user_latency_ms": 0.5 + seconds / 100,
        "users_per_second": 900.0, "disk_bytes": 5000,
    }  # fmt: skip
    return {
        "model": name, "dataset": "shop", "test_result": result, "best_valid_score": 0.1, "costs": costs,
        "segments": {"history_length": halves, "popularity": copy.deepcopy(halves)}, **further,
    }  # fmt: skip


def _write_run(folder, name, ranks, points):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": name, "dataset": "shop", "eval_targets": "each"}))
    of_users = {name: np.ones(USERS, np.int64) for name in ("target", "history_length", "popularity")}
    np.savez_compressed(folder / "ranks-test.npz", user=np.arange(1, USERS + 1), rank=ranks, **of_users)
    (folder / "curve.json").write_text(json.dumps(points))
    versions = {"recbole_hllm": "0.1.0", "torch": "2.13.0", "finished": "2026-01-02T03:04:05+00:00"}
    (folder / "versions.json").write_text(json.dumps(versions))


def points_of(number):
    """A curve of so many validations."""
    return [
        {
            "epoch": epoch, "steps": 10 * epoch, "loss": 2.0 / (1 + epoch), "training_seconds": 1.5 * (epoch + 1),
            "item_tokens": None, "flops": 1e9, "valid": {"ndcg@10": 0.05 + 0.01 * epoch}, "best": True,
        }
        for epoch in range(number)
    ]  # fmt: skip


@pytest.fixture
def write_table(tmp_path):
    """(names, header, change) -> folder of a table of such rows, each a little worse and cheaper than before."""

    def write(names=("HLLM", "SASRec", "Pop"), header=None, change=None):
        folder, rows = tmp_path / "table", []
        random = np.random.RandomState(0)
        for number, name in enumerate(names):
            ranks = random.randint(1, 15 + 4 * number, USERS)
            _write_run(folder / name.replace("/", "_"), name, ranks, points_of(4 if name != "Pop" else 1))
            rows.append(_row(name, ranks, 100.0 / (1 + number)))
        header = {"dataset": "shop", "users": USERS, "valid_metric": "NDCG@10", "split": "LS", **(header or {})}
        table = {"header": header, "rows": rows}
        if change:
            change(table)
        (folder / "table.json").write_text(json.dumps(table))
        keys = {"model": list(names), "dataset": "shop", "data_path": "/secret/place", "SASRec.learning_rate": 0.01}
        (folder / "keys.yaml").write_text(yaml.safe_dump({**keys, "HLLM.cache_dir": "/secret/cache"}))
        return folder

    return write


@pytest.fixture
def hostile():
    return HOSTILE
