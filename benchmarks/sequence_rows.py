"""Time and memory of RecBole's stored prefix rows against rows made on demand, on synthetic interactions.

    python benchmarks/sequence_rows.py [--interactions 300000] [--length 50]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def write_data(folder: Path, interactions: int) -> None:
    """Users with 20 interactions on average, one second apart, in shuffled file order."""
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, max(interactions // 20, 1), interactions))
    items = rng.integers(0, 20_000, interactions)
    order = rng.permutation(interactions)
    lines = (f"u{users[i]}\ti{items[i]}\t{1_500_000_000 + 1000 * i}" for i in order)
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "synthetic").mkdir()
    (folder / "synthetic" / "synthetic.inter").write_text(header + "\n".join(lines) + "\n")


def measure(kind: str, folder: str, length: int) -> None:
    """Prints seconds to build, megabytes of it, and seconds for one epoch of the loader's batches."""
    from recbole.data.dataloader import TrainDataLoader
    from recbole.data.dataset import SequentialDataset

    from recbole_hllm import Config, create_dataset, data_preparation

    keys = {"data_path": folder, "MAX_ITEM_LIST_LENGTH": length, "train_batch_size": 512, "use_gpu": False,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}  # fmt: skip
    config = Config("SASRec", "synthetic", config_dict=keys)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if kind == "stored":
        loader = TrainDataLoader(config, SequentialDataset(config).build()[0], None, shuffle=True)
    else:
        loader = data_preparation(config, create_dataset(config))[0]
    built = time.perf_counter() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    start = time.perf_counter()
    for _ in loader:
        pass
    print(f"{built:.2f} {memory:.0f} {time.perf_counter() - start:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=300_000)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(*arguments.measure, arguments.length)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), arguments.interactions)
        results = {}
        for kind in ("stored", "on demand"):  # a process each: peak memory never falls
            command = [sys.executable, __file__, "--measure", kind, folder, "--length", str(arguments.length)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[kind] = [float(number) for number in output.split()[-3:]]
    print(f"{arguments.interactions:,} interactions, history length {arguments.length}\n")
    print("| rows | build | memory | one epoch of batches |\n| --- | ---: | ---: | ---: |")
    for kind, (build, memory, epoch) in results.items():
        print(f"| {kind} | {build:.2f} s | {memory:.0f} MB | {epoch:.2f} s |")
    ratios = [a / max(b, 0.01) for a, b in zip(*results.values(), strict=True)]
    print("| ratio | " + " | ".join(f"{ratio:.1f}x" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
