"""The service under load: latency at a rate of requests, errors, batches, and memory before and after.

    python benchmarks/serving_load.py --rate 50 --seconds 300                       # 1,682 items of 64 numbers, exact
    python benchmarks/serving_load.py --items 407082 --width 384 --rate 5 --seconds 300 --export FOLDER
    recbole-hllm index FOLDER --kind=hnsw
    python benchmarks/serving_load.py --export FOLDER --rate 50 --seconds 300 --index hnsw

The service is a process of its own, and the load is made beside it on the same machine. The loop is open: requests come
at random times, as many a second as asked for, whether or not earlier ones are answered, and a latency counts from the
moment a request was due. An export that --export names and that is not there is made, and kept with its index: a SASRec
of random weights over the vectors of `serving_index.py`. Its users are near their last item: the best, the 10th and the
50th item have cosines of 0.88, 0.68 and 0.61 (of 40,000).
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from serving_index import clustered

from recbole_hllm.nn.user_models.sequence import SASRecUser
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.served import ServedVectors

_LENGTH = 50


def write_export(folder: Path, items: int, width: int) -> Path:
    """A catalogue of vectors in clusters, as those of texts are, with ids 1 to n."""
    vectors = F.pad(clustered(items, width)[0], (0, 0, 1, 0))
    torch.manual_seed(0)
    model = SASRecUser(width, _LENGTH, 2, 2, 4 * width, "gelu", 1e-12)
    served = ServedVectors(model, vectors, cosine=True, length=_LENGTH)
    folder.mkdir(parents=True)
    described = files.write_served(served, folder)
    ids = list(map(str, range(1, items + 1)))
    files.write_items(folder, ids, [{"title": f"Item number {item}"} for item in ids])
    manifest = {"program": "benchmark", "model": "SASRec", "dataset": "synthetic", "served": described}
    files.write_manifest(folder, {**manifest, "template": None})
    return folder


class Connections:
    """Keeps connections open and asks over them, without a library of HTTP, which would take the cores' time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: bytes) -> int:
        """Status of an answer; 0 where there is none."""
        try:
            reader, writer = await self._open()
            writer.write(
                b"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            self._free.append((reader, writer))
            return int(head.split(b" ", 2)[1])
        except (OSError, asyncio.IncompleteReadError):
            return 0

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # the service closes those that have been idle for long
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)


async def load(port: int, rate: float, seconds: float, ids: list[str], k: int) -> list[tuple[float, int]]:
    """Seconds and status of each answer, of requests with histories of 1 to 50 items."""
    connections, chance, found = Connections(port), random.Random(0), []

    async def one(due: float) -> None:
        history = [chance.choice(ids) for _ in range(chance.randint(1, _LENGTH))]
        status = await connections.ask(json.dumps({"items": history, "k": k}).encode())
        found.append((time.perf_counter() - due, status))

    begin, due, tasks = time.perf_counter(), 0.0, set()
    while (due := due + chance.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
        task = asyncio.create_task(one(begin + due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return found


def memory(process: int) -> float:
    """MB that a process has in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def computed(process: int) -> float:
    """Seconds that a process has computed, all threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def started(folder: Path, port: int, options: list[str]) -> tuple[subprocess.Popen[bytes], float]:
    """A service, and the seconds until it answered."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "recbole_hllm.cli", "serve", str(folder), f"--port={port}", *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, time.perf_counter() - begin
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"the service ended: {' '.join(command)}") from None
            time.sleep(0.02)


def measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Numbers of one load."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    process, start = started(folder, port, [f"--index={given.index}"] if given.index else [])
    try:
        ids = files.read_items(folder)[0]
        asyncio.run(load(port, given.rate, given.warm_up, ids, given.k))
        before, begin = memory(process.pid), computed(process.pid)
        answers = asyncio.run(load(port, given.rate, given.seconds, ids, given.k))
        after, seconds = memory(process.pid), computed(process.pid) - begin
    finally:
        process.terminate()
        process.wait()
    times = np.array([seconds for seconds, _ in answers]) * 1000
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "items": len(ids), "index": given.index or "exact", "requests": len(answers),
        "errors": sum(status != 200 for _, status in answers), "a second": f"{len(answers) / given.seconds:.1f}",
        "p50 ms": f"{p50:.1f}", "p99 ms": f"{p99:.1f}", "most ms": f"{times.max():.1f}",
        "CPU ms": f"{1000 * seconds / len(answers):.1f}", "start s": f"{start:.1f}",
        "MB before": f"{before:.0f}", "MB after": f"{after:.0f}",
    }  # fmt: skip


def main() -> None:
    """Prints one row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export", type=Path)
    parser.add_argument("--items", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--index")
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--warm-up", type=float, default=5)
    parser.add_argument("--k", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = given.export or Path(place) / "export"
        if not folder.exists():
            write_export(folder, given.items or 1682, given.width or 64)
        elif given.items or given.width:
            raise SystemExit(f"{folder} is there: leave out --items and --width")
        row = measure(folder, given)
    print(f"| {' | '.join(row)} |\n|{' ---: |' * len(row)}\n| {' | '.join(map(str, row.values()))} |")


if __name__ == "__main__":
    main()
