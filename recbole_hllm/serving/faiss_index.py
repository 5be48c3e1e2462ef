"""An index of faiss over the vectors of items: the best items without scoring all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recbole_hllm.errors import ConfigError, MissingExtra
from recbole_hllm.serving.index import ExactIndex, ItemVectors, best_of

# Beyond so many neighbours of each user all items are scored, which is quicker then.
MOST = 2048
_AT_ONCE = 8192  # vectors that are added
_MOST_GATHERED = 2**25  # numbers of candidates' vectors that are held at once
_POINTS, _ROUNDS = 64, 10  # of a list, and of k-means, which finds the lists


def faiss_module() -> Any:
    """The library.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss-cpu", "faiss", "an index other than the exact one") from error
    return faiss


class Kind(NamedTuple):
    """A kind of index.

    Attributes:
        empty: (width, items, breadth) -> without vectors; breadth is what the option below says, None: by default.
        option: what ``breadth`` is.
        parameters: (effort, k) -> of a search.
        efforts: (items) -> those that are tried, rising.
    """

    empty: Callable[[int, int, int | None], Any]
    option: str
    parameters: Callable[[int, int], Any]
    efforts: Callable[[int], list[int]]


def _flat(width: int, count: int, breadth: int | None) -> Any:
    return faiss_module().IndexFlatIP(width)


def _hnsw(width: int, count: int, breadth: int | None) -> Any:
    """Float16 takes half the memory, and what is found is scored in float32."""
    faiss = faiss_module()
    index = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_fp16, breadth or 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = max(200, 2 * (breadth or 32))
    return index


def _ivf(width: int, count: int, breadth: int | None) -> Any:
    faiss = faiss_module()
    lists = min(breadth or _lists(count), count)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid, index.cp.niter = _POINTS, 1, _ROUNDS
    return index


def _lists(count: int) -> int:
    return int(4 * count**0.5)


def _doubling(first: int, last: int) -> list[int]:
    found = [first]
    while found[-1] < last:
        found.append(min(2 * found[-1], last))
    return found


KINDS = {
    "flat": Kind(_flat, "nothing", lambda effort, k: None, lambda items: [1]),
    "ivf": Kind(
        _ivf,
        "lists",
        lambda effort, k: faiss_module().SearchParametersIVF(nprobe=effort),
        lambda items: _doubling(1, _lists(items)),
    ),
    "hnsw": Kind(
        _hnsw,
        "links of an item",
        lambda effort, k: faiss_module().SearchParametersHNSW(efSearch=max(effort, k)),
        lambda items: _doubling(64, MOST),
    ),
}


@dataclass(frozen=True)
class Measured:
    """How good an index is.

    Attributes:
        recall: share of the best ``k`` items of a user that it finds.
        k: see ``recall``.
        users: that it was measured with.
        histories: of these users, "stored" ones or "random" ones.
        effort: of a search, the least that was enough: candidates of hnsw, lists of ivf.
        seconds: that building took.
    """

    recall: float
    k: int
    users: int
    histories: str
    effort: int
    seconds: float


class FaissIndex:
    """Finds candidates with faiss and scores them as the exact index does.

    Items that were added or changed since it was built are scored beside it, all of them.

    Args:
        items: gives the vectors.
        built: faiss's index of items 1, 2, and so on, see ``filled``.
        kind: one of `KINDS`.
        measured: how good it is.
    """

    exact = False

    def __init__(self, items: ItemVectors, built: Any, kind: str, measured: Measured) -> None:
        self.vectors, self.built, self.kind, self.measured = items, built, kind, measured
        self._all = ExactIndex(items)
        self._changed = torch.zeros(0, dtype=torch.long)

    def changed(self, items: Tensor) -> None:
        """Some items have other vectors from now on; see `Index`."""
        old = items.cpu()[items.cpu() <= self.built.ntotal]
        self._changed = torch.cat([self._changed, old]).unique()

    def search(self, users: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best items of each user; see `Index`."""
        items, changed = self.vectors.items, self._changed.to(users.device)
        wanted = k + len(changed)
        if wanted > MOST:
            return self._all.search(users, k)
        new = torch.arange(self.built.ntotal + 1, len(items), device=users.device)
        beside = torch.cat([changed, new])
        at_once = max(1, _MOST_GATHERED // (wanted * items.shape[1]))
        found = [self._search(block, wanted, k, changed, beside, items) for block in users.split(at_once)]
        return torch.cat([scores for scores, _ in found]), torch.cat([numbers for _, numbers in found])

    def _search(
        self, users: Tensor, wanted: int, k: int, changed: Tensor, beside: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor]:
        numbers = neighbours(self.built, self.kind, users, wanted, self._effort(wanted))
        if len(changed):
            numbers.masked_fill_(torch.isin(numbers, changed), 0)
        scores = torch.bmm(items[numbers], users[:, :, None])[:, :, 0].masked_fill_(numbers == 0, -torch.inf)
        if len(beside):
            more, places = best_of(users @ items[beside].T, min(k, len(beside)))
            scores, numbers = torch.cat([scores, more], 1), torch.cat([numbers, beside[places]], 1)
        best = scores.topk(min(k, scores.shape[1]))
        return best.values, numbers.gather(1, best.indices)

    def _effort(self, k: int) -> int:
        """More neighbours take more candidates to find the same share of them."""
        if self.kind != "hnsw":
            return self.measured.effort
        return min(-(-self.measured.effort * max(k, self.measured.k) // self.measured.k), MOST)


def neighbours(built: Any, kind: str, users: Tensor, k: int, effort: int) -> Tensor:
    """(B, k) numbers of items near (B, E) users, from 1; 0 where fewer are found."""
    asked = np.ascontiguousarray(users.float().cpu().numpy())
    _, found = built.search(asked, k, params=KINDS[kind].parameters(effort, k))
    return torch.from_numpy(found).to(users.device) + 1


def filled(items: Tensor, kind: str, breadth: int | None = None) -> Any:
    """faiss's index of (N, E) vectors, without row 0, which is padding.

    Graphs and lists are made by inner products, too. Vectors of one length, which one more number gives (Bachrach et
    al. 2014, Speeding Up the Xbox Recommender System, section 3), were found worse: on SASRec's items a graph of these
    finds 0.90 of the best 50 with the effort that finds 0.99 without it.

    Raises:
        ConfigError: there is no such kind.
        MissingExtra: faiss is not installed.
    """
    if kind not in KINDS:
        raise ConfigError(f"index: {kind!r} is not one of {', '.join(('exact', *KINDS))}")
    vectors = items[1:].cpu().numpy()
    built = KINDS[kind].empty(vectors.shape[1], len(vectors), breadth)
    if not built.is_trained:
        step = max(1, len(vectors) // (_POINTS * built.nlist))  # k-means takes so many points
        built.train(np.ascontiguousarray(vectors[::step]))
    with tqdm(total=len(vectors), desc=f"Index {kind}", unit="item", disable=None, leave=False) as bar:
        for first in range(0, len(vectors), _AT_ONCE):
            some = vectors[first : first + _AT_ONCE]
            built.add(some)
            bar.update(len(some))
    return built
