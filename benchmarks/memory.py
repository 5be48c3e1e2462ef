"""What a training step of HLLM takes at its peak, by the number of negatives and what is kept of the items.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/memory.py [--negatives 512 28672] [--ways auto] [--batch 32]
        [--items 100000] [--json FILE] [--key=value ...]

A made-up catalogue with texts of 8 to 24 tokens, each user's history of 20 items; keys are those of property files,
such as ``--memory_gb=3``. Each measurement is a process of its own: a first small step, which makes the optimizer's
moments, then one step whose peak is the kernel's (VmHWM, set back before it). Ways: ``auto`` keeps what fits into
``memory_gb``, ``keep`` keeps all activations, ``again`` computes all of them again, ``two passes`` computes vectors
without a graph, then the loss, then each chunk with its gradients. The ratios are of the most to the fewest negatives
of the first way.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WAYS = {"auto": None, "keep": False, "again": True, "two passes": None}
WORDS = "the new blue old little red soft small large hot cold long short light dark sweet clean dry deep wide".split()
HISTORY, PER_USER = 20, 23  # items that are read; all of a user, those of validation and test among them


def write_data(folder: Path, items: int) -> None:
    """Every item occurs; a text of 6 to 22 words has two special tokens beside them."""
    rng = np.random.default_rng(0)
    place = folder / "made"
    place.mkdir()
    with open(place / "made.item", "w", encoding="utf-8") as file:
        file.write("item_id:token\ttitle:token_seq\n")
        for item, count in enumerate(rng.integers(6, 23, items)):
            file.write(f"i{item}\t{' '.join(rng.choice(WORDS, count))}\n")
    users = -(-items // PER_USER)
    order = np.concatenate([rng.permutation(items), rng.integers(0, items, users * PER_USER - items)])
    with open(place / "made.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for number, item in enumerate(order):
            file.write(f"u{number // PER_USER}\ti{item}\t{number}\n")


def status(name: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def measure(folder: Path, way: str, negatives: int, batch: int, words: list[str]) -> None:
    """Prints, as JSON, the peak of a step and what it took."""
    from recbole_hllm.allocator import keep_freed_memory

    keep_freed_memory()
    import torch
    from recbole.utils import init_seed

    import recbole_hllm.model.hllm.hllm as hllm
    from recbole_hllm import Config, create_dataset, data_preparation
    from recbole_hllm.training.trainer import Trainer
    from recbole_hllm.verbs.line import parse_arguments

    imported = status("VmRSS")
    if way == "two passes":
        hllm.encode_items = in_two_passes(hllm.encode_items)
    keys = {
        "data_path": str(folder), "cache_dir": str(folder / "cache"), "use_gpu": False, "show_progress": False,
        "state": "info", "text_keys": ["title"], "text_field": "{value}", "MAX_TEXT_LENGTH": 24,
        "MAX_ITEM_LIST_LENGTH": HISTORY, "train_batch_size": batch, "num_negatives": negatives,
        "recompute_items": WAYS[way], "memory_gb": 3, **parse_arguments(words),
    }  # fmt: skip
    config = Config("HLLM", "made", config_dict=keys)
    init_seed(config["seed"], config["reproducibility"])
    train, *_ = data_preparation(config, create_dataset(config))
    model = config.spec.build(config, train._dataset)
    with tempfile.TemporaryDirectory() as place:
        trainer = Trainer(config, model, Path(place))
        trainer._prepare(train)
        model.train()
        rows = next(iter(train))
        few = type(rows)({"item_id_list": rows["item_id_list"][:2], "neg_item_id": rows["neg_item_id"][:, :32]})
        trainer.train_batch(few), trainer._step()
        Path("/proc/self/clear_refs").write_text("5")
        before, start = status("VmRSS"), time.process_time()
        loss = trainer.train_batch(rows)
        trainer._step()
        print(json.dumps({
            "way": way, "negatives": negatives, "items": model.items_encoded, "peak": status("VmHWM"),
            "imported": imported, "before": before, "cpu": time.process_time() - start, "loss": float(loss),
            "set-up": f"{config['precision']}, memory_gb {config['memory_gb']}, torch {torch.__version__}",
        }))  # fmt: skip


def in_two_passes(encode_items):
    """``encode_items`` whose graph is made, and whose gradients are computed, when those of the vectors are there."""
    import torch

    from recbole_hllm.nn.chunked import _chunk_bounds

    class TwoPasses(torch.autograd.Function):
        @staticmethod
        def forward(ctx, encoder, chunks, *weights):
            ctx.encoder, ctx.chunks = encoder, chunks
            ctx.states = []
            vectors = []
            for chunk in chunks:
                ctx.states.append(torch.get_rng_state())
                vectors.append(encoder(*chunk))
            return torch.cat(vectors)

        @staticmethod
        def backward(ctx, gradient):
            for chunk, state, part in zip(
                ctx.chunks, ctx.states, gradient.split([len(c[1]) for c in ctx.chunks]), strict=True
            ):
                with torch.random.fork_rng(), torch.enable_grad():
                    torch.set_rng_state(state)
                    torch.autograd.backward(ctx.encoder(*chunk), part)
            return None, None, *(None for _ in ctx.needs_input_grad[2:])

    def encode(encoder, tokens, lengths, *, token_budget, recompute):
        if not recompute:
            return encode_items(encoder, tokens, lengths, token_budget=token_budget)
        order = torch.argsort(lengths, descending=True, stable=True)
        texts = tokens.split(lengths.tolist())
        chunks = [
            (torch.cat([texts[place] for place in order[first:last].tolist()]), lengths[order[first:last]])
            for first, last in _chunk_bounds(lengths[order].tolist(), token_budget)
        ]
        return TwoPasses.apply(encoder, chunks, *encoder.parameters())[torch.argsort(order)]

    return encode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--negatives", type=int, nargs="+", default=[512, 28_672])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["auto"])
    parser.add_argument("--batch", type=int, default=32, help="users")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--json", help="file for the ratios")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments, words = parser.parse_known_args()
    if arguments.measure:
        folder, way, negatives = arguments.measure
        return measure(Path(folder), way, int(negatives), arguments.batch, words)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), arguments.items)
        found = [
            measured(folder, way, negatives) for way in arguments.ways for negatives in sorted(arguments.negatives)
        ]
    report(arguments, found)


def measured(folder: str, way: str, negatives: int) -> dict:
    """The result of a process of its own, which may have failed for want of memory."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", folder, way, str(negatives)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(output.splitlines()[-1])


def report(arguments, found: list[dict]) -> None:
    """The table, and the ratios."""
    print(f"{arguments.items:,} items, batches of {arguments.batch}, {found[0]['set-up']}\n")
    print("| way | negatives | items encoded | peak | above imports | CPU s | loss |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for result in found:
        above = result["peak"] - result["imported"]
        print(f"| {result['way']} | {result['negatives']:,} | {result['items']:,} | {result['peak']:,.0f} MiB | "
              f"{above:,.0f} MiB | {result['cpu']:.1f} | {result['loss']:.4f} |")  # fmt: skip
    first = [result for result in found if result["way"] == arguments.ways[0]]
    fewest, most = first[0], first[-1]
    ratios = {
        f"memory_ratio_{most['negatives']}_vs_{fewest['negatives']}": most["peak"] / fewest["peak"],
        "memory_ratio_above_imports": (most["peak"] - most["imported"]) / (fewest["peak"] - fewest["imported"]),
    }
    print("\n" + ", ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**ratios, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
