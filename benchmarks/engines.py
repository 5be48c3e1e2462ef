"""What two processes gain: the same steps of HLLM by one process and, under each strategy, by two.

    PYTHONPATH=. python benchmarks/engines.py --data FOLDER [--strategies single,ddp] [--processes 2] [--rows 128]
        [--steps 4] [--json FILE] [--key=value ...]

Batches of amazon-scientific-2018 in FOLDER, the same for all: several processes share each of them. MiniLM as Item LLM,
one thread for each process, gloo; zero1, zero2 and zero3 are DeepSpeed's. Losses of all steps are compared. Seconds are
those of the clock, since processes wait for each other: measure on a machine with nothing else to do and at least as
many cores as processes. Efficiency is the speed-up divided by the number of processes. Further keys are those of
property files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from training_speed import CASES

WARM_UP = 1
STRATEGIES = {
    "single": {"strategy": "single"},
    "ddp": {"strategy": "ddp"},
    **{f"zero{stage}": {"strategy": "deepspeed", "stage": stage} for stage in (1, 2, 3)},
}
LOSS_TOLERANCE = 1e-3


def measure(strategy: str, arguments, words: list[str]) -> None:
    """The first process prints, as JSON, the seconds of a step and the losses."""
    import torch
    from recbole.utils import init_seed

    from recbole_hllm import Config, create_dataset, data_preparation, processes
    from recbole_hllm.training.trainer import Trainer
    from recbole_hllm.verbs.line import parse_arguments

    torch.set_num_threads(1)
    keys = {**CASES["scientific"], "data_path": str(arguments.data), "train_batch_size": arguments.rows}
    keys |= {"precision": "fp32", "use_gpu": False, "show_progress": False, "state": "warning", **STRATEGIES[strategy]}
    config = Config("HLLM", config_dict=keys | parse_arguments(words))
    processes.begin(config["device"])
    init_seed(config["seed"], config["reproducibility"])
    train, *_ = data_preparation(config, create_dataset(config))
    with tempfile.TemporaryDirectory() as folder:
        trainer, losses = Trainer(config, config.spec.build(config, train._dataset), Path(folder)), []
        trainer.engine.share_out(train)
        trainer._prepare(train)
        trainer._show = lambda bar, batch, loss, terms: losses.append(loss)
        batches = list(islice(train, WARM_UP + arguments.steps))
        trainer._train_epoch(batches[:WARM_UP], 0)
        processes.current().wait()
        start = time.perf_counter()
        trainer._train_epoch(batches[WARM_UP:], 0)
        seconds = (time.perf_counter() - start) / arguments.steps
    if processes.current().is_first:
        print(json.dumps({"seconds": seconds, "losses": losses}), flush=True)
    processes.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of amazon-scientific-2018")
    parser.add_argument("--strategies", default="single,ddp", help=f"some of {', '.join(STRATEGIES)}")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, default=128, help="of a batch, those of all processes together")
    parser.add_argument("--steps", type=int, default=4, help="besides the first")
    parser.add_argument("--json", type=Path, help="file for the efficiencies")
    parser.add_argument("--measure", choices=STRATEGIES, help=argparse.SUPPRESS)
    arguments, words = parser.parse_known_args()
    if arguments.measure:
        return measure(arguments.measure, arguments, words)
    found = {strategy: result_of(strategy, arguments.processes) for strategy in arguments.strategies.split(",")}
    efficiency = report(found, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(efficiency, indent=1) + "\n")


def result_of(strategy: str, processes: int) -> dict:
    """What its processes measure."""
    number = 1 if strategy == "single" else processes
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"] if number > 1 else []
    command = [sys.executable, *launch, __file__, *sys.argv[1:], f"--measure={strategy}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(next(line for line in output.splitlines()[::-1] if line.startswith("{")))


def report(found: dict[str, dict], arguments) -> dict[str, float]:
    """Prints the table; returns the efficiency of each strategy.

    Raises:
        SystemExit: losses differ.
    """
    first, efficiency = next(iter(found.values())), {}
    print(f"HLLM, {arguments.rows} rows, {arguments.steps} steps\n")
    print("| strategy | processes | s a step | users/s | speed-up | efficiency |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for strategy, result in found.items():
        differences = [abs(a - b) / abs(a) for a, b in zip(first["losses"], result["losses"], strict=True)]
        if max(differences) > LOSS_TOLERANCE:
            raise SystemExit(f"{strategy}: losses are {result['losses']}, the first strategy's {first['losses']}")
        number, speed_up = 1 if strategy == "single" else arguments.processes, first["seconds"] / result["seconds"]
        if number > 1:
            efficiency[f"{strategy}_efficiency"] = speed_up / number
        print(
            f"| {strategy} | {number} | {result['seconds']:.2f} | {arguments.rows / result['seconds']:.1f} | "
            f"{speed_up:.2f}x | {speed_up / number:.0%} |"
        )
    return efficiency


if __name__ == "__main__":
    main()
