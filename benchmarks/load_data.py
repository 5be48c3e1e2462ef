"""From the file to the first training batch, and batches after it: time, memory, rows a second; of stock RecBole too.

    PYTHONPATH=. python benchmarks/load_data.py --data_path dataset --dataset ml-100k [--model SASRec] [--stock]
        [--epoch 30] [--key=value ...]

Prints one line of JSON. One process measures one thing, as peak memory never falls; what imports take is apart. Keys
are those of property files. ``--stock`` is RecBole 1.2 with its own classes and its own config.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

STATUS = Path("/proc/self/status")


def memory() -> dict[str, float]:
    """Gigabytes of this process: resident, its highest so far, and the part of it that only mirrors files."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    names = {"resident_gb": "VmRSS", "peak_gb": "VmHWM", "of_files_gb": "RssFile"}
    return {name: int(lines[field].split()[0]) * 1024 / 1e9 for name, field in names.items()}


def forget_peak() -> None:
    """The highest memory is that from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Ours:
    """This project's data set and loaders."""

    def __init__(self, model: str, dataset: str, keys: dict[str, Any]) -> None:
        from recbole.utils import init_seed

        from recbole_hllm import Config, create_dataset, data_preparation

        self.config = Config(model, dataset, config_dict=keys)
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.read, self.loaders = create_dataset, data_preparation


class Stock:
    """RecBole's own, which asks NumPy 2 for names that are gone; everything else is as it is."""

    def __init__(self, model: str, dataset: str, keys: dict[str, Any]) -> None:
        import recbole_hllm  # noqa: F401  (these names)

        # isort: split
        import recbole.config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import init_seed

        recbole.config.Config.compatibility_settings = lambda config: None
        protocol = {
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
            "train_neg_sample_args": None, "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        }  # fmt: skip
        sys.argv = sys.argv[:1]  # it would read ours
        self.config = recbole.config.Config(model, dataset, config_dict={**protocol, **keys})
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.read, self.loaders = create_dataset, data_preparation


def measure(side: type, model: str, dataset: str, keys: dict[str, Any], epoch_seconds: float) -> dict[str, Any]:
    """Seconds to read, to make loaders and for the first batch; memory before, at most and after; the batches after.

    Args:
        side: Ours or Stock.
        epoch_seconds: stop the epoch after so many; 0 for no batches after the first.
    """
    start = time.perf_counter()
    chosen = side(model, dataset, {"show_progress": False, "state": "warning", "use_gpu": False, **keys})
    imports, before = time.perf_counter() - start, memory()
    forget_peak()
    marks, cpu = [time.perf_counter()], cpu_seconds()
    data = chosen.read(chosen.config)
    marks.append(time.perf_counter())
    train, *_ = chosen.loaders(chosen.config, data)
    marks.append(time.perf_counter())
    batches = iter(train)
    first = len(next(batches))
    marks.append(time.perf_counter())
    after = memory()
    seconds = dict(zip(("read", "loaders", "first_batch"), np.diff(marks).tolist(), strict=True))
    result = {
        "load_seconds": marks[-1] - marks[0], "seconds": seconds, "cpu_seconds": cpu_seconds() - cpu,
        "import_seconds": imports, "imports_gb": before["resident_gb"], **after,
        "peak_gb": max(before["peak_gb"], after["peak_gb"]),
        "peak_above_imports_gb": after["peak_gb"] - before["resident_gb"],
        "users": int(data.user_num) - 1, "items": int(data.item_num) - 1, "rows": len(train._dataset),
    }  # fmt: skip
    del data
    if epoch_seconds:
        result |= epoch(batches, epoch_seconds, first, len(train._dataset))
        result["peak_with_epoch_above_imports_gb"] = memory()["peak_gb"] - before["resident_gb"]
    return result


def epoch(batches: Any, at_most: float, first: int, rows: int) -> dict[str, float]:
    """Rows a second of batches after the first, and what a whole epoch takes at this pace."""
    begin, cpu, made = time.perf_counter(), cpu_seconds(), 0
    for batch in batches:
        made += len(batch)
        if time.perf_counter() - begin > at_most:
            break
    seconds, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
    pace = {"rows_per_second": made / seconds, "rows_per_cpu_second": made / cpu, "rows_seen": made + first}
    return {**pace, "epoch_seconds": rows / pace["rows_per_second"], "epoch_cpu_seconds": rows * cpu / made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="SASRec")
    parser.add_argument("--stock", action="store_true", help="RecBole's own classes")
    parser.add_argument("--epoch", type=float, default=10, help="seconds of batches after the first; 0: none")
    arguments, words = parser.parse_known_args()
    import yaml

    from recbole_hllm.verbs.line import parse_arguments

    keys = {key: yaml.safe_load(value) for key, value in parse_arguments(words).items()}
    keys["data_path"] = os.path.abspath(arguments.data_path)
    side = Stock if arguments.stock else Ours
    print(json.dumps(measure(side, arguments.model, arguments.dataset, keys, arguments.epoch)))


if __name__ == "__main__":
    main()
