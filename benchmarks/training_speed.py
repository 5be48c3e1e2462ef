"""What a training step of HLLM takes in "reference mode", and with each of our savings switched on after the other.

    PYTHONPATH=. python benchmarks/training_speed.py --data FOLDER [--cases scientific,beauty,zipf] [--rows 128]
        [--threads 1] [--steps 3] [--json FILE] [--key=value ...]

Reference mode is what a plain program does, the official code among them: the Item LLM reads every item at every place
of the windows, random items at places of padding too, texts padded to the longest, all in one graph, in float32 with
eager attention. Then, one after the other: places of padding are left out; each item is read once; items are read in
chunks of similar length; the User LLM reads histories by length; the allocator keeps freed memory; bf16. Above them
stands what torch's anomaly detection costs, which RecBole's import switches on.

Same weights, batches and mathematics: the loss of the first batch is compared. ``scientific`` and ``beauty`` are real
batches of data sets in FOLDER, with MiniLM; ``zipf`` is written by ``zipf_data.py``, with 8 layers of SmolLM2-135M's
shape and random weights. Each way is a process of its own; numbers are medians of its steps but the first, ratios are
of CPU time, which other work on the machine changes least. On a machine of its own one thread has the same ratio of
users a second. Further keys are those of property files.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import zipf_data

PLAIN = {"recompute_items": False, "item_chunk_tokens": 10**9, "attn_implementation": "eager"}
REAL = {"train_batch_size": 128, "MAX_ITEM_LIST_LENGTH": 20, "num_negatives": 512, "MAX_TEXT_LENGTH": 24}
CASES = {
    "scientific": {"dataset": "amazon-scientific-2018", **REAL, "text_keys": ["title", "brand", "categories"]},
    "beauty": {"dataset": "amazon-beauty-2014", **REAL, "text_keys": ["title"]},
    "zipf": {"dataset": zipf_data.NAME, **REAL, "train_batch_size": 8, "MAX_ITEM_LIST_LENGTH": 50,
             "item_llm_init": False},
}  # fmt: skip
COLUMNS = ("way", "texts", "real tokens", "s a step", "CPU s", "users/s", "speed-up", "to line before", "peak memory")
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}


@dataclass(frozen=True)
class Way:
    """How a step is computed.

    Attributes:
        places: that the Item LLM reads: ``all``, ``real`` ones, or each ``distinct`` item once.
        chunked: items of similar length together; else all at once.
        by_length: histories of similar length together.
        kept: the allocator keeps freed memory.
        precision: key of that name.
        anomaly: torch's anomaly detection.
    """

    places: str = "all"
    chunked: bool = False
    by_length: bool = False
    kept: bool = False
    precision: str = "fp32"
    anomaly: bool = False


REFERENCE, OURS = Way(), Way("distinct", True, True, True)
WAYS = {
    "reference mode with anomaly detection": replace(REFERENCE, anomaly=True),
    "reference mode": REFERENCE,
    "no places of padding": Way("real"),
    "each item once": Way("distinct"),
    "chunks of similar length": Way("distinct", True),
    "histories by length": Way("distinct", True, True),
    "freed memory kept (our step)": OURS,
    "bf16": replace(OURS, precision="bf16"),
}


# ---- one way, in a process of its own ----


def measure(case: str, name: str, arguments, words: list[str]) -> None:
    """Prints, as JSON, the seconds of each step and what was read."""
    way = WAYS[name]
    from recbole_hllm.allocator import keep_freed_memory

    if way.kept and not keep_freed_memory():
        raise SystemExit("the C library is not glibc, or its allocator's variables are set")
    import torch

    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer, batches, read = prepared(case, way, arguments, words, folder)
        torch.autograd.set_detect_anomaly(way.anomaly)
        seconds, cpu, losses, counts = [], [], [], []
        for rows in batches:
            start, before = time.perf_counter(), time.process_time()
            losses.append(float(trainer.train_batch(rows)))
            trainer._step()
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - before)
            counts.append(read.pop())
    from recbole_hllm.training.peak_memory import peak_memory

    print(json.dumps({
        "rows": len(batches[0]), "seconds": statistics.median(seconds[1:]), "cpu": statistics.median(cpu[1:]),
        "texts": statistics.median(texts for texts, _ in counts[1:]),
        "tokens": statistics.median(tokens for _, tokens in counts[1:]),
        "loss": losses[0], "peak": peak_memory(trainer.device),
        "machine": f"{torch.backends.cpu.get_cpu_capability()} instructions, torch {torch.__version__}",
    }))  # fmt: skip


def prepared(case: str, way: Way, arguments, words: list[str], folder):
    """A trainer whose model reads in that way, batches, and a list that gets texts and tokens of each."""
    from recbole.utils import init_seed

    from recbole_hllm import Config, create_dataset, data_preparation
    from recbole_hllm.training.trainer import Trainer
    from recbole_hllm.verbs.line import parse_arguments

    keys = {**CASES[case], "cache_dir": str(arguments.scratch / "cache")}
    if case == "zipf":
        keys |= {"data_path": str(arguments.scratch), "item_pretrain_dir": str(arguments.scratch / zipf_data.LLM)}
    else:
        keys |= {"data_path": str(arguments.data), "train_batch_size": arguments.rows}
    keys |= {"precision": way.precision, "use_gpu": False, "show_progress": False, "state": "warning"}
    keys |= {"recompute_items": False} if way.chunked else PLAIN
    config = Config("HLLM", config_dict=keys | parse_arguments(words))
    init_seed(config["seed"], config["reproducibility"])
    train, *_ = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, config.spec.build(config, train._dataset), Path(folder))
    trainer._prepare(train)
    trainer.model.train()
    return trainer, list(islice(train, 1 + arguments.steps)), changed(trainer.model, way)


def changed(model, way: Way) -> list[tuple[int, int]]:
    """Makes a model read in that way; returns a list that gets the number of texts and of real tokens of each step."""
    import torch

    read, once = [], model.vectors_of
    if not way.by_length:
        model.read_by_length = model.read_history
    generator = torch.Generator().manual_seed(0)

    def each_once(ids):
        distinct = torch.unique(ids)
        count(distinct[distinct != 0])
        return once(ids)

    def every_place(ids):
        """Vectors of all places, or of all but padding."""
        model.items_encoded = len(ids)
        if way.places == "all":
            return encoded(torch.where(ids == 0, torch.randint(1, model.n_items, ids.shape, generator=generator), ids))
        vectors = encoded(ids[ids != 0])
        return vectors.new_zeros(len(ids), vectors.shape[1]).masked_scatter((ids != 0)[:, None], vectors)

    def encoded(ids):
        """In one graph, padded to the longest."""
        count(ids)
        return model.item_encoder(*model.catalogue.lookup(ids))

    def count(ids):
        read.append((len(ids), int(model.catalogue.lookup(ids)[1].sum())))

    model.vectors_of = each_once if way.places == "distinct" else every_place
    return read


# ---- all ways ----


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", type=Path, help="folder of amazon-scientific-2018 and amazon-beauty-2014")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--ways", default=",".join(WAYS), help="some of them, by name")
    parser.add_argument("--rows", type=int, default=128, help="of a batch of real data; one graph of 128 needs 13 GB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="of each process, besides the first")
    parser.add_argument("--json", type=Path, help="file for the ratios")
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments, words = parser.parse_known_args()
    if arguments.measure:
        return measure(*arguments.measure, arguments, words)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases.split(","):
            if case == "zipf":
                zipf_data.write(Path(folder))
            report = Report(case)
            for way in arguments.ways.split(","):
                report.add(way, result_of(case, way, arguments, folder))
            found[case] = report.results
    if arguments.json:
        arguments.json.write_text(json.dumps(ratios(found), indent=1) + "\n")


def result_of(case: str, way: str, arguments, folder: str) -> dict:
    """What a process of its own measures."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--scratch={folder}", "--measure", case, way]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(output.splitlines()[-1])


class Report:
    """The table of a case, printed line by line, with ratios to reference mode and to the line before.

    Attributes:
        results: of the ways so far.
    """

    def __init__(self, case: str) -> None:
        self.case = case
        self.results: dict[str, dict] = {}

    def add(self, way: str, result: dict) -> None:
        """Prints a line.

        Raises:
            SystemExit: the loss is another one than the first line's.
        """
        if not self.results:
            print(f"\n{self.case}, {result['rows']} rows, {result['machine']}\n")
            print(f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}")
        first, before = next(iter(self.results.values()), result), [*self.results.values(), result][-2:][0]
        if abs(result["loss"] - first["loss"]) > LOSS_TOLERANCE[WAYS[way].precision] * first["loss"]:
            raise SystemExit(f"{way}: the first loss is {result['loss']}, that of the first line {first['loss']}")
        self.results[way] = result
        base = self.results.get("reference mode", result)
        ratios = (f"{other['cpu'] / result['cpu']:.2f}x" for other in (base, before))
        print(
            f"| {way} | {result['texts']:,.0f} | {result['tokens']:,.0f} | {result['seconds']:.2f} | "
            f"{result['cpu']:.2f} | {result['rows'] / result['cpu']:.1f} | {' | '.join(ratios)} | "
            f"{result['peak'] / 1e9:.1f} GB |",
            flush=True,
        )


def ratios(found: dict[str, dict[str, dict]]) -> dict[str, float]:
    """Of our step in float32 to reference mode, of each case; and of bf16 to float32, of the first."""
    made = {}
    for case, results in found.items():
        speed = {way: 1 / result["cpu"] for way, result in results.items()}
        ours = speed.get("freed memory kept (our step)")
        if ours and "reference mode" in speed:
            made[f"step_speedup_{case}"] = ours / speed["reference mode"]
        if ours and "bf16" in speed:
            made.setdefault("bf16_speedup", speed["bf16"] / ours)
    return made


if __name__ == "__main__":
    main()
