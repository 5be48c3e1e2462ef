"""What an index saves over scoring all items: recall, time of a query, time to build, memory; at a large catalogue.

    python benchmarks/serving_index.py --keep FOLDER [--items 407082 --width 384 --kinds hnsw --min_recall 0.98]

Vectors are a mixture of Gaussians: the sizes of its clusters fall as 1/rank, centres are near those of fewer topics,
and the variance along axes falls as rank^-0.8, as seen in vectors of item texts: their first axis has a tenth of the
variance, the first 50 four fifths. All have length 1. A user is the direction of an item plus noise of the same length:
the best, the 10th and the 50th item then have cosines of 0.71, 0.53 and 0.47 (of 40,000), where HLLM on Amazon
Scientific has 0.68, 0.54 and 0.46. FOLDER keeps vectors and index, which a second call reads. Ways take turns, query
by query.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_hllm.nn.user_models.base import Histories, UserModel
from recbole_hllm.serving.folder import VECTORS, UserHistories, write_served
from recbole_hllm.serving.index import ExactIndex
from recbole_hllm.serving.index_building import INDEX, build_index, read_index, write_index
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import ServedVectors

CLUSTERS, TOPICS, LENGTH = 4000, 200, 8
SPREAD, OWN, DECAY = 0.7, 0.8, 0.4


class NoisyUser(UserModel):
    """The last item, and noise of the same length that the whole history decides."""

    def forward(self, histories: Histories) -> Tensor:
        """(B, E) vectors of the users."""
        width = histories.vectors.shape[-1]
        mixed = torch.randn(width, width, generator=torch.Generator().manual_seed(2))
        last = histories.vectors[torch.arange(len(histories.last)), histories.last]
        return F.normalize(last, dim=1) + F.normalize(histories.vectors.sum(1) @ mixed, dim=1)


def clustered(items: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(N, E) vectors of length 1, and the cluster of each."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(width, width, generator=generator))[0] * torch.arange(1, width + 1) ** -DECAY

    def drawn(count: int) -> Tensor:
        return torch.randn(count, width, generator=generator) @ axes.T

    topics = torch.randint(TOPICS, (CLUSTERS,), generator=generator)
    centres = drawn(TOPICS)[topics] + OWN * drawn(CLUSTERS)
    of_item = torch.multinomial(1 / torch.arange(1, CLUSTERS + 1), items, replacement=True, generator=generator)
    return F.normalize(centres[of_item] + SPREAD * drawn(items), dim=1), of_item


def histories_of(clusters: Tensor, users: int, seed: int = 1) -> UserHistories:
    """Of users who each like one to three clusters, chosen by their size."""
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(clusters.numpy() == cluster) for cluster in range(CLUSTERS)]
    items = []
    for _ in range(users):
        liked = clusters.numpy()[random.integers(0, len(clusters), random.integers(1, 4))]
        items.append([random.choice(members[cluster]) + 1 for cluster in random.choice(liked, LENGTH)])
    flat = torch.tensor(np.array(items)).flatten()
    return UserHistories.of(
        [str(user) for user in range(users)], flat, torch.zeros(len(flat)), torch.arange(users + 1) * LENGTH
    )


def memory() -> float:
    """GB that the process has at its peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def milliseconds(ways: dict[str, Callable[[Tensor], object]], users: Tensor, at_once: int) -> dict[str, list[float]]:
    """Of each call, the ways taking turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for block in users.split(at_once):
        for name, way in ways.items():
            begun = time.perf_counter()
            way(block)
            found[name].append(1e3 * (time.perf_counter() - begun))
    return found


def main() -> None:
    """Prints what was measured."""
    options = argparse.ArgumentParser()
    options.add_argument("--items", type=int, default=407_082)
    options.add_argument("--width", type=int, default=384)
    options.add_argument("--users", type=int, default=1000)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--k", type=int, default=50)
    options.add_argument("--kinds", default="hnsw")
    options.add_argument("--min_recall", type=float, default=0.98)
    options.add_argument("--keep", type=Path, required=True)
    given = options.parse_args()
    vectors, clusters = clustered(given.items, given.width)
    histories = histories_of(clusters, given.users)
    served = ServedVectors(NoisyUser({}), F.pad(vectors, (0, 0, 1, 0)), cosine=True, length=LENGTH)
    del vectors
    print(
        f"{given.items} x {given.width}, {torch.get_num_threads()} threads; vectors: peak {memory():.2f} GB", flush=True
    )
    ways: dict[str, Callable[[Tensor], object]] = {"exact": lambda users: ExactIndex(served).search(users, given.k)}
    for kind in given.kinds.split(","):
        folder = given.keep / kind
        if not (folder / VECTORS).is_file():
            write_served(served, folder)
        index = read_index(folder, served, kind)
        if index is None:
            begun = memory()
            index = build_index(served, histories, kind, min_recall=given.min_recall, k=given.k)
            write_index(index, folder, given.min_recall)
            print(f"{kind}: peak of building {memory() - begun:+.2f} GB", flush=True)
        print(kind, index.measured, f"file {(folder / INDEX).stat().st_size / 2**20:.0f} MB", flush=True)
        ways[kind] = lambda users, index=index: index.search(users, given.k)  # type: ignore[misc]
    items = histories.items.reshape(-1, LENGTH).tolist()
    asked = torch.cat([served.users(Rows.of(items[first : first + 64])) for first in range(0, len(items), 64)])
    print("| at once | way | median ms | p99 ms | exact / way |\n| ---: | --- | ---: | ---: | ---: |")
    for at_once in (1, 8, 64):
        found = milliseconds(ways, asked[: given.queries * min(at_once, 4)], at_once)
        for name, times in found.items():
            ratio = np.median(np.array(found["exact"]) / np.array(times))
            print(f"| {at_once} | {name} | {np.median(times):.1f} | {np.quantile(times, 0.99):.1f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
