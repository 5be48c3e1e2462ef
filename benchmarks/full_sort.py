"""Full-sort evaluation of vectors that are given: RecBole's evaluator, a table of scores, and blocks of it.

    python benchmarks/full_sort.py [--users 64 --items 407082 --width 64 --k 200 --history 18 --threads 1 --rounds 5]

Each way ranks the same rows with the history masked. Times are the least of several rounds in which the ways take
turns; memory is the peak above what the process had before, each way in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import recbole_hllm  # noqa: F401  (NumPy's old names, before RecBole)

# isort: split
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector
from recbole.trainer import Trainer

from recbole_hllm.evaluation.ranking import ScoreProduct
from recbole_hllm.evaluation.topk import TopKCollector
from recbole_hllm.runs.folder import forget_peak_memory, peak_memory

TARGETS, LISTS = ["Recall", "NDCG", "MRR"], ["Recall", "NDCG", "MRR", "ItemCoverage"]


def make_rows(users: int, items: int, width: int, history: int, seed: int = 0) -> SimpleNamespace:
    """Vectors of users and items, one target of each user, and items to mask that are not the target."""
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(count, width, generator=generator) for count in (users, items)]
    targets = torch.randint(1, items, (users,), generator=generator)
    rows = torch.arange(users).repeat_interleave(history)
    masked = torch.randint(1, items, rows.shape, generator=generator)
    other = masked != targets[rows]
    return SimpleNamespace(
        users=vectors[0], items=vectors[1], rows=Interaction({"user_id": torch.arange(users)}), n_items=items,
        targets=(torch.arange(users), targets), masked=(rows[other], masked[other]),
    )  # fmt: skip


def _config(metrics: list[str], k: int) -> dict[str, Any]:
    return {
        "metrics": metrics, "topk": [k], "eval_args": {"mode": {"valid": "full", "test": "full"}},
        "device": torch.device("cpu"), "USER_ID_FIELD": "user_id", "LABEL_FIELD": "label", "eval_type": None,
    }  # fmt: skip


def recbole(given: SimpleNamespace, k: int, metrics: list[str]) -> Any:
    """RecBole's own: scores and masks of its Trainer, lists and hits of its Collector."""
    model = SimpleNamespace(full_sort_predict=lambda _: given.users @ given.items.T)
    trainer = SimpleNamespace(model=model, device=torch.device("cpu"), tot_item_num=given.n_items)
    _, scores, *positives = Trainer._full_sort_batch_eval(trainer, (given.rows, given.masked, *given.targets))
    collector = Collector(_config(metrics, k))
    collector.eval_batch_collect(scores, given.rows, *positives)
    return collector.data_struct.get("rec.topk")


def table(given: SimpleNamespace, k: int, metrics: list[str]) -> Any:
    """This package's, of a model that gives a table of scores."""
    scores = given.users @ given.items.T
    scores[:, 0] = -np.inf
    scores[given.masked] = -np.inf
    collector = TopKCollector(_config(metrics, k))
    collector.eval_batch_collect(scores, given.rows, *given.targets)
    return collector.get_data_struct().get("rec.topk")


def blocks(given: SimpleNamespace, k: int, metrics: list[str]) -> Any:
    """This package's, of a model that gives vectors."""
    collector = TopKCollector(_config(metrics, k))
    collector.collect(ScoreProduct(given.users, given.items), given.rows, *given.targets, given.masked)
    return collector.get_data_struct().get("rec.topk")


# Name -> way, and the metrics it is asked for: of targets, or of the listed items as well.
WAYS: dict[str, Callable[..., Any]] = {
    "RecBole's evaluator": partial(recbole, metrics=TARGETS),
    "RecBole's, and lists": partial(recbole, metrics=LISTS),
    "a table of scores": partial(table, metrics=TARGETS),
    "blocks": partial(blocks, metrics=TARGETS),
    "blocks, and lists": partial(blocks, metrics=LISTS),
}


def measure(
    users: int = 64, items: int = 407_082, width: int = 64, k: int = 200, history: int = 18, rounds: int = 5
) -> dict[str, Any]:
    """Seconds and peak memory of each way, and what blocks save against RecBole.

    Args:
        users: rows of one batch.
        items: of the catalogue, with the padding item.
        width: numbers of a vector.
        k: length of the lists.
        history: masked items of each user.
        rounds: of which the fastest counts.

    Returns:
        ``eval_speedup_vs_recbole`` and ``eval_memory_vs_recbole`` (below 1 is less memory) of metrics of targets, the
        same ``with_lists`` of metrics of the listed items too, and ``ways``: name -> ``seconds`` and ``megabytes``.
    """
    given = make_rows(users, items, width, history)
    results, seconds = {name: way(given, k) for name, way in WAYS.items()}, dict.fromkeys(WAYS, float("inf"))
    assert all(torch.equal(results["RecBole's evaluator"].int(), found.int()) for found in results.values())
    for _ in range(rounds):
        for name, way in WAYS.items():
            start = time.perf_counter()
            way(given, k)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    sizes = json.dumps([users, items, width, k, history, torch.get_num_threads()])
    ways = {}
    for name in WAYS:
        command = [sys.executable, __file__, "--memory", name, sizes]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        ways[name] = {"seconds": seconds[name], "megabytes": float(output.split()[-1])}
    found: dict[str, Any] = {"ways": ways}
    for theirs, ours, end in (
        ("RecBole's evaluator", "blocks", "vs_recbole"),
        ("RecBole's, and lists", "blocks, and lists", "with_lists"),
    ):
        found[f"eval_speedup_{end}"] = ways[theirs]["seconds"] / ways[ours]["seconds"]
        found[f"eval_memory_{end}"] = ways[ours]["megabytes"] / ways[theirs]["megabytes"]
    return found


def _megabytes(name: str, sizes: str) -> float:
    users, items, width, k, history, threads = json.loads(sizes)
    torch.set_num_threads(threads)
    WAYS[name](make_rows(2, 1000, width, 1), min(k, 500))  # what is loaded with the first use
    given, cpu = make_rows(users, items, width, history), torch.device("cpu")
    forget_peak_memory(cpu)
    before = peak_memory(cpu) or 0
    WAYS[name](given, k)
    return max((peak_memory(cpu) or 0) - before, 1) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--items", type=int, nargs="+", default=[407_082, 80_000, 3_000])
    for name, default in (("width", 64), ("k", 200), ("history", 18), ("threads", 1), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory:
        print(_megabytes(*asked.memory))
        return
    torch.set_num_threads(asked.threads)
    words = f"{asked.users} users, vectors of {asked.width}, lists of {asked.k}, {asked.history} masked items each"
    print(f"{words}, {asked.threads} thread(s), torch {torch.__version__}\n")
    print("| items | way | ms | users/s | ratio | memory | ratio |\n| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for items in asked.items:
        ways = measure(asked.users, items, asked.width, asked.k, asked.history, asked.rounds)["ways"]
        first = ways["RecBole's evaluator"]
        for name, way in ways.items():
            times, share = first["seconds"] / way["seconds"], way["megabytes"] / first["megabytes"]
            cells = f"{1000 * way['seconds']:.1f} | {asked.users / way['seconds']:,.0f} | {times:.1f}x"
            print(f"| {items:,} | {name} | {cells} | {way['megabytes']:.0f} MB | {share:.2f} |")


if __name__ == "__main__":
    main()
