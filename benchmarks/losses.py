"""What a loss of many negatives costs, with all logits at once and in blocks of positions: CPU time, peak memory.

    python benchmarks/losses.py [--positions 2560] [--width 64] [--plain_limit_gb 4]

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


def measured(*case: object) -> tuple[float, float, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--case", *map(str, case)]
    loss, seconds, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(loss), float(seconds), float(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=2560)
    parser.add_argument("--width", type=int, default=64, help="of the vectors")
    parser.add_argument("--plain_limit_gb", type=float, default=4.0, help="largest matrix of the plain form")
    parser.add_argument("--case", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        way, *sizes, threshold = arguments.case
        measure(way, *map(int, sizes), None if threshold == "None" else float(threshold))
        return
    print("| negatives | nce_thres | way | loss | CPU s | peak MB |\n| ---: | ---: | --- | ---: | ---: | ---: |")
    for negatives, nce_thres in CASES:
        for way in ("plain", "blocks"):
            name = f"| {negatives:,} | {nce_thres or '-'} | {way} |"
            if way == "plain" and arguments.positions * negatives * 4 > arguments.plain_limit_gb * 1e9:
                print(f"{name} - | - | {arguments.positions * negatives * 4 / 1e6:,.0f} a matrix |", flush=True)
                continue
            loss, seconds, memory = measured(way, arguments.positions, negatives, arguments.width, nce_thres)
            print(f"{name} {loss:.5f} | {seconds:.2f} | {memory / 1e6:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
