"""Whether a run that is killed at random moments, and goes on, is the run that nobody killed, bit for bit.

    PYTHONPATH=. python benchmarks/kill_resume.py [--kills 100] [--each 1] [--signal KILL] [--seed 1] [--model SASRec]
        [--json FILE] [--key=value ...]

MovieLens-100k, which RecBole carries; keys are those of property files. One run is left alone. Then a run at a time is
started and gets a signal at a random moment, from its first line to its last, and is resumed, until there were so many
signals; a run gets at most ``--each`` of them. Its curves in TensorBoard, its metrics, and its best and last weights
are compared with those of the run left alone. The exit code is 0 where all are equal.

Processes are forks of one that has imported everything. A run with the keys below takes about a minute on one core.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
MEASURED = ("/s", "share_of_peak")  # how tags of what is of time end: never the same
KEYS = {
    "dataset": "ml-100k", "show_progress": False, "state": "warning", "max_steps": 150, "save_every_steps": 10,
    "eval_every_steps": 40, "train_batch_size": 256, "precision": "fp32", "use_gpu": False,
}  # fmt: skip


def train(model: str, keys: dict, folder: Path) -> None:
    """One run, or the rest of it."""
    from recbole_hllm.runs.run import run

    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background
    begun = (folder / "config.yaml").is_file()
    run(None if begun else model, config_dict={"resume": True} if begun else keys, run_dir=folder)


def finish(arguments, keys: dict, folder: Path, moments: list[float]) -> int:
    """A run to its end, with a signal after so many seconds of each process; returns how many came before its end."""
    number, sent = getattr(signal, f"SIG{arguments.signal}"), 0
    for seconds in [*moments, None]:
        process = multiprocessing.get_context("fork").Process(target=train, args=(arguments.model, keys, folder))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            os.kill(process.pid, number)
            process.join()
            sent += 1
        elif process.exitcode != 0:
            raise SystemExit(f"a run that goes on has failed, in {folder}")
        else:
            break
    return sent


def found(folder: Path) -> dict:
    """What has to be equal."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from recbole_hllm.training.checkpoint import read_tensors

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.endswith(MEASURED)]
    result = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    for part in ("best", "last"):
        weights = read_tensors(folder / part / "weights.safetensors")
        result |= {f"{part}: {name}": tensor.numpy().tobytes() for name, tensor in weights.items()}
    return result | {"metrics": (folder / "metrics.json").read_text()}


def main() -> int:
    """All runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--each", type=int, default=1)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="SASRec")
    parser.add_argument("--json")
    arguments, words = parser.parse_known_args()
    import_all()
    from recbole_hllm.verbs.line import parse_arguments

    keys, draw, kills, runs, differ = {**KEYS, **parse_arguments(words)}, random.Random(arguments.seed), 0, 0, []
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        begun = time.monotonic()
        finish(arguments, keys, whole, [])
        seconds, expected = time.monotonic() - begun, found(whole)
        while kills < arguments.kills:
            runs, folder = runs + 1, Path(place) / "run"
            each = min(arguments.each, arguments.kills - kills)
            kills += finish(arguments, keys, folder, [draw.uniform(0, seconds) for _ in range(each)])
            result = found(folder)
            names = expected.keys() | result.keys()
            wrong = sorted(name for name in names if result.get(name) != expected.get(name))
            if wrong:
                differ.append(runs)
                print(f"run {runs} differs in {', '.join(wrong)}", flush=True)
            shutil.rmtree(folder)
            progress = f"{kills} of {arguments.kills} signals, {runs} runs, {len(differ)} differ"
            print(progress, file=sys.stderr, flush=True)
    report = {"kills": kills, "runs": runs, "equal": runs - len(differ), "seconds": round(seconds, 1)}
    print(f"| signal | kills | runs | equal | seconds of a run |\n| --- | ---: | ---: | ---: | ---: |\n"
          f"| SIG{arguments.signal} | {kills} | {runs} | {report['equal']} | {seconds:.1f} |")  # fmt: skip
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report))
    return bool(differ)


def import_all() -> None:
    """What the runs need, so that their forks need not."""
    import torch._dynamo  # noqa: F401  (the optimizer's first import)

    import recbole_hllm.model.hllm.hllm
    import recbole_hllm.runs.run  # noqa: F401
    from recbole_hllm.config.parsing import listed_keys

    listed_keys()


if __name__ == "__main__":
    sys.exit(main())
