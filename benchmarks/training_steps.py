"""What a training step takes as it was, and with each of the savings that every model gets.

    PYTHONPATH=. python benchmarks/training_steps.py [--model SASRec] [--threads 1] [--steps 4] [--rounds 3]
        [--key=value ...]

MovieLens-100k, which RecBole carries; keys are those of property files. The ways build on each other: torch's anomaly
detection, which RecBole's import switches on, is off; the allocator keeps freed memory; the numbers of all steps are
read together. Each way is a process of its own, as the allocator's thresholds cannot be taken back, and the ways take
turns. Numbers are medians of processes, of all steps but the first two. Ratios are of CPU time, which other work on the
machine changes least.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice

WARM_UP = 2
WAYS = {  # way -> anomaly detection, freed memory kept, numbers read together
    "as it was": (True, False, False),
    "anomaly detection off": (False, False, False),
    "and freed memory kept": (False, True, False),
    "and numbers read together": (False, True, True),
}


def measure(way: str, arguments, words: list[str]) -> None:
    """Prints, as JSON, what a step took: seconds, CPU seconds and page faults; and the peak memory in MB."""
    anomaly, kept, together = WAYS[way]
    from recbole_hllm.allocator import keep_freed_memory

    if kept and not keep_freed_memory():
        raise SystemExit("the C library is not glibc, or its allocator's variables are set")
    import torch

    from recbole_hllm.training.trainer import Trainer

    class ReadsEach(Trainer):
        """Reads each number of a batch by itself."""

        def train_batch(self, *arguments, **keywords):
            loss = super().train_batch(*arguments, **keywords)
            for number in (loss, *getattr(self.model, "loss_terms", {}).values()):
                float(number)
            return loss

    torch.set_num_threads(arguments.threads)
    torch.autograd.set_detect_anomaly(anomaly)
    with tempfile.TemporaryDirectory() as folder:
        config, trainer, batches = prepared(Trainer if together else ReadsEach, folder, arguments, words)
        trainer._train_epoch(batches[:WARM_UP], 0)
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        trainer._train_epoch(batches[WARM_UP:], 0)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({
        "seconds": seconds / arguments.steps, "cpu": cpu / arguments.steps,
        "faults": (after.ru_minflt - before.ru_minflt) / arguments.steps, "peak": after.ru_maxrss / 1024,
        "set-up": f"{config['precision']}, {torch.backends.cpu.get_cpu_capability()} instructions, "
                  f"torch {torch.__version__}",
    }))  # fmt: skip


def prepared(trainer_class, folder, arguments, words):
    """The config, a trainer and as many batches as are needed."""
    from recbole.utils import init_seed

    from recbole_hllm import Config, create_dataset, data_preparation
    from recbole_hllm.verbs.line import parse_arguments

    keys = {"dataset": "ml-100k", "show_progress": False, "state": "warning", **parse_arguments(words)}
    config = Config(arguments.model, config_dict=keys)
    init_seed(config["seed"], config["reproducibility"])
    train, *_ = data_preparation(config, create_dataset(config))
    trainer = trainer_class(config, config.spec.build(config, train._dataset), folder)
    trainer._prepare(train)
    return config, trainer, list(islice(train, WARM_UP + arguments.steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", default="SASRec")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4, help="of each process, besides the first two")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    arguments, words = parser.parse_known_args()
    if arguments.measure:
        return measure(arguments.measure, arguments, words)
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, results in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], f"--measure={way}"]
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            results.append(json.loads(output.splitlines()[-1]))
    report(arguments, found)


def report(arguments, found) -> None:
    """The table, with ratios to the first way."""
    threads = f"{arguments.threads} thread{'s' * (arguments.threads > 1)}"
    print(f"{arguments.model}, {threads}, {found['as it was'][0]['set-up']}\n")
    print("| way | s a step | CPU s a step | ratio | page faults a step | peak memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    first = None
    for way, results in found.items():
        names = ("seconds", "cpu", "faults", "peak")
        seconds, cpu, faults, peak = (statistics.median(result[name] for result in results) for name in names)
        first = first or cpu
        print(f"| {way} | {seconds:.2f} | {cpu:.2f} | {first / cpu:.2f}x | {faults:,.0f} | {peak:,.0f} MB |")


if __name__ == "__main__":
    main()
