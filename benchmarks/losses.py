"""What a loss of many negatives costs, with all logits at once and in blocks of positions: CPU time, peak memory.

    python benchmarks/losses.py [--positions 2560] [--width 64] [--plain_limit_gb 4]
    python benchmarks/losses.py --own [--positions 856] [--width 256]

With --own each position has negatives of its own, 256 of a catalogue: their vectors are copied to their places, or
the products are entries of a sparse matrix. Else all positions share them.

Each case is a forward and backward pass in a process of its own. Memory is the process's peak beyond what it held
before the pass: logits, mask and gradients, without vectors. The plain form, which holds several matrices of
positions x negatives, is left out where one of them is larger than the limit.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from recbole_hllm.nn.losses import info_nce
from recbole_hllm.nn.negatives import once_each

OWN = 256
CATALOGUES = (4_344, 12_101, 407_000)
CASES = ((512, 0.99), (28_672, 0.99), (28_672, None), (407_000, None), (407_000, 0.99))


def plain_info_nce(outputs, targets, negatives, target_ids, negative_ids, logit_scale, nce_thres):
    """The loss with one matrix of all logits, and one of cosines for the filter."""
    outputs, targets, negatives = (F.normalize(vectors, dim=-1) for vectors in (outputs, targets, negatives))
    with torch.no_grad():
        removed = target_ids[:, None] == negative_ids
        if nce_thres is not None:
            removed |= targets @ negatives.T > nce_thres
    outputs = outputs * logit_scale.exp()
    positive = (outputs * targets).sum(-1)
    logits = (outputs @ negatives.T).masked_fill_(removed, torch.finfo(torch.float32).min)
    with torch.no_grad():  # the accuracies and the count of survivors, which a log shows
        (logits > positive[:, None]).sum(-1), (~removed).sum()
    return (torch.logaddexp(positive, logits.logsumexp(-1)) - positive).mean()


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure(way: str, positions: int, negatives: int, width: int, nce_thres: float | None) -> None:
    """Prints loss, CPU seconds and peak bytes of one pass."""
    torch.manual_seed(0)
    sizes = (positions, positions, negatives)
    leaves = [torch.randn(size, width).requires_grad_() for size in sizes]
    scale = torch.tensor(2.66, requires_grad=True)
    ids = torch.randint(1, negatives + 1, (positions,)), torch.arange(1, negatives + 1)
    before, start = peak_bytes(), time.process_time()
    if way == "plain":
        loss = plain_info_nce(*leaves, *ids, scale, nce_thres)
    else:
        loss = info_nce(*leaves, *ids, scale, nce_thres).loss
    loss.backward()
    print(loss.item(), time.process_time() - start, peak_bytes() - before)


def copied_info_nce(outputs, targets, table, target_ids, own_ids, logit_scale, cosine):
    """The loss with the vector of each position's own negatives copied to its place."""
    negatives = F.embedding(own_ids, table)
    if cosine:
        outputs, targets, negatives = (F.normalize(vectors, dim=-1) for vectors in (outputs, targets, negatives))
    outputs = outputs * logit_scale.exp()
    positive = (outputs * targets).sum(-1)
    logits = torch.einsum("pd,pkd->pk", outputs, negatives)
    logits = logits.masked_fill(target_ids[:, None] == own_ids, torch.finfo(torch.float32).min)
    return (torch.logaddexp(positive, logits.logsumexp(-1)) - positive).mean()


def measure_own(way: str, positions: int, n_items: int, width: int, cosine: bool) -> None:
    """As ``measure``, from a table of items, the vectors taken from it included."""
    torch.manual_seed(0)
    outputs, targets, table = ((0.1 * torch.randn(n, width)).requires_grad_() for n in (positions, positions, n_items))
    scale = torch.tensor(2.66, requires_grad=True)
    target_ids, ids = (torch.randint(n_items, shape) for shape in ((positions,), (positions, OWN)))
    before, start = peak_bytes(), time.process_time()
    if way == "copied":
        loss = copied_info_nce(outputs, targets, table, target_ids, ids, scale, cosine)
    else:
        distinct, places = once_each(ids, n_items)
        vectors = F.embedding(distinct, table)
        further = {"places": places, "cosine": cosine}
        loss = info_nce(outputs, targets, vectors, target_ids, ids, scale, None, **further).loss
    loss.backward()
    print(loss.item(), time.process_time() - start, peak_bytes() - before)


def measured(*case: object, own: bool = False) -> tuple[float, float, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, *["--own"] * own, "--case", *map(str, case)]
    loss, seconds, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(loss), float(seconds), float(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--own", action="store_true", help="negatives of each position")
    parser.add_argument("--positions", type=int, help="2560; 856 with --own")
    parser.add_argument("--width", type=int, help="of the vectors; 64, 256 with --own")
    parser.add_argument("--plain_limit_gb", type=float, default=4.0, help="largest matrix of the plain form")
    parser.add_argument("--case", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        way, *sizes, threshold = arguments.case
        if arguments.own:
            return measure_own(way, *map(int, sizes), threshold == "cosines")
        measure(way, *map(int, sizes), None if threshold == "None" else float(threshold))
        return
    if arguments.own:
        return print_own(arguments.positions or 856, arguments.width or 256)
    positions, width = arguments.positions or 2560, arguments.width or 64
    print("| negatives | nce_thres | way | loss | CPU s | peak MB |\n| ---: | ---: | --- | ---: | ---: | ---: |")
    for negatives, nce_thres in CASES:
        for way in ("plain", "blocks"):
            name = f"| {negatives:,} | {nce_thres or '-'} | {way} |"
            if way == "plain" and positions * negatives * 4 > arguments.plain_limit_gb * 1e9:
                print(f"{name} - | - | {positions * negatives * 4 / 1e6:,.0f} a matrix |", flush=True)
                continue
            loss, seconds, memory = measured(way, positions, negatives, width, nce_thres)
            print(f"{name} {loss:.5f} | {seconds:.2f} | {memory / 1e6:,.0f} |", flush=True)


def print_own(positions: int, width: int) -> None:
    """The table of --own."""
    print("| items | compared by | way | loss | CPU s | ratio | peak MB |")
    print("| ---: | --- | --- | ---: | ---: | ---: | ---: |")
    for n_items in CATALOGUES:
        for by in ("products", "cosines"):
            first = None
            for way in ("copied", "places"):
                loss, seconds, memory = measured(way, positions, n_items, width, by, own=True)
                first = first or seconds
                ratio = f"{first / seconds:.1f}x | {memory / 1e6:,.0f} |"
                print(f"| {n_items:,} | {by} | {way} | {loss:.5f} | {seconds:.2f} | {ratio}", flush=True)


if __name__ == "__main__":
    main()
