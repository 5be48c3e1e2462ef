"""What is in a file of faiss, looked at before faiss reads it: the kinds that are written here, whole; nothing else.

Faiss trusts numbers in a file as places in memory, and some of its kinds name other files to read. A file passes here
only if each number in it is in its bounds and the file ends where its content does.

The layout is that of faiss's ``index_write.cpp``: a name of four letters, a header, then arrays, each after its length.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_hllm.errors import Damaged

_INNER_PRODUCT = 0  # faiss's METRIC_INNER_PRODUCT
_KINDS = {b"IxFI": "flat", b"IwFl": "ivf", b"IHNs": "hnsw"}
_FLOAT16 = 4  # faiss's QT_fp16


@dataclass(frozen=True)
class Layout:
    """What a file holds.

    Attributes:
        kind: flat, ivf or hnsw.
        count: of the vectors.
        width: of each.
    """

    kind: str
    count: int
    width: int


def checked_layout(path: Path) -> Layout:
    """What a file of faiss holds, after every part of it was looked at.

    Raises:
        Damaged: it is missing, cut, of another kind, or has numbers that cannot be.
    """
    try:
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} is missing or damaged: {error}") from error
    try:
        reader = _Reader(content)
        layout = _index(reader)
        _must(reader.place == len(content), "it goes on after its end")
    except _Wrong as error:
        raise Damaged(f"{path} is no index of this program, or damaged: {error}") from error
    return layout


class _Wrong(Exception):
    """What cannot be."""


def _must(holds: object, otherwise: str) -> None:
    if not holds:
        raise _Wrong(otherwise)


class _Reader:
    """Takes one part after the other."""

    def __init__(self, content: np.ndarray) -> None:
        self._content, self.place = content, 0

    def take(self, kind: str, count: int) -> np.ndarray:
        """The next numbers, as they lie in the file."""
        size = count * np.dtype(kind).itemsize
        _must(0 <= size <= len(self._content) - self.place, "it ends too early")
        part = self._content[self.place : self.place + size].view(kind)
        self.place += size
        return part

    def one(self, kind: str) -> int:
        """The next number."""
        return int(self.take(kind, 1)[0])

    def array(self, kind: str) -> np.ndarray:
        """The next numbers, after their count."""
        return self.take(kind, self.one("<u8"))

    def name(self) -> bytes:
        """The next four letters."""
        return self.take("u1", 4).tobytes()


def _index(reader: _Reader) -> Layout:
    name = reader.name()
    _must(name in _KINDS, f"it begins with {name!r}")
    layout = _header(reader, _KINDS[name])
    if layout.kind == "hnsw":
        _graph(reader, layout.count)
        _halves_within(reader, layout)
    elif layout.kind == "ivf":
        _lists(reader, layout)
    else:
        _vectors(reader, layout)
    return layout


def _header(reader: _Reader, kind: str) -> Layout:
    width, count = reader.one("<i4"), reader.one("<i8")
    layout = Layout(kind, count, width)
    reader.take("<i8", 2)  # not used
    trained, metric = reader.one("u1"), reader.one("<i4")
    _must(layout.width > 0 and layout.count >= 0, f"it has {layout.count} vectors of {layout.width} numbers")
    _must(trained == 1 and metric == _INNER_PRODUCT, "it is no finished index of inner products")
    return layout


def _vectors(reader: _Reader, layout: Layout) -> None:
    _must(len(reader.array("<f4")) == layout.count * layout.width, "it has another number of vectors than it says")


def _flat_within(reader: _Reader, count: int, width: int) -> None:
    """An index inside another one, of its vectors."""
    _must(reader.name() == b"IxFI", "its vectors are kept in another way")
    inner = _header(reader, "flat")
    _must((inner.count, inner.width) == (count, width), "it has another number of vectors than it says")
    _vectors(reader, inner)


def _halves_within(reader: _Reader, layout: Layout) -> None:
    """An index inside another one, of its vectors in float16."""
    _must(reader.name() == b"IxSQ", "its vectors are kept in another way")
    inner = _header(reader, layout.kind)
    kind, _, _ = reader.take("<i4", 3)  # the others are of kinds that learn their steps
    width, size, steps = reader.one("<u8"), reader.one("<u8"), reader.array("<f4")
    _must(inner == layout and width == layout.width, "it has another number of vectors than it says")
    _must(kind == _FLOAT16 and size == 2 * width and not len(steps), "its vectors are not float16")
    _must(len(reader.array("u1")) == layout.count * size, "it has another number of vectors than it says")


def _graph(reader: _Reader, count: int) -> None:
    """Links of HNSW: node n has room for those of all its layers from ``offsets[n]`` on, those of layer L behind
    ``begins[L]``."""
    reader.array("<f8")  # shares of the layers
    begins = reader.array("<i4").astype(np.int64)
    layers = reader.array("<i4").astype(np.int64)
    offsets, links = reader.array("<u8").astype(np.int64), reader.array("<i4")
    entry, top = reader.one("<i4"), reader.one("<i4")
    reader.take("<i4", 3)  # efforts of building and of search, and one that is not used
    highest = len(begins) - 1
    _must(len(layers) == count and len(offsets) == count + 1, "it has links of another number of items")
    _must(highest >= 1 and begins[0] == 0 and (np.diff(begins) >= 0).all(), "its layers are not in order")
    _must(count == 0 or (layers.min() >= 1 and layers.max() <= highest), "an item has layers that there are not")
    _must(offsets[0] == 0 and (np.diff(offsets) == begins[layers]).all(), "the links of an item begin elsewhere")
    _must(offsets[-1] == len(links), "it has another number of links than it says")
    _must(count == 0 or (links.min() >= -1 and links.max() < count), "a link leads to no item")
    _must(0 <= entry < count and layers[entry] == top + 1 if count else entry == -1, "its entry is no item")
    for layer in range(1, highest):
        nodes = np.flatnonzero(layers > layer)
        places = offsets[nodes, None] + np.arange(begins[layer], begins[layer + 1])
        reached = links[places.ravel()]
        _must((layers[reached[reached >= 0]] > layer).all(), "a link leads to an item that is not in its layer")


def _lists(reader: _Reader, layout: Layout) -> None:
    lists = reader.one("<u8")
    reader.one("<u8")  # how many are searched
    _flat_within(reader, lists, layout.width)
    _must(reader.one("u1") == 0 and len(reader.array("<i8")) == 0, "it has a map of its items")
    _must(reader.name() == b"ilar", "its lists lie elsewhere")
    _must(reader.one("<u8") == lists and reader.one("<u8") == 4 * layout.width, "its lists have other vectors")
    sizes = _sizes(reader, lists)
    _must(sum(sizes) == layout.count, "its lists have another number of items than it says")
    for size in sizes:
        reader.take("<f4", size * layout.width)
        items = reader.take("<i8", size)
        _must(size == 0 or (items.min() >= 0 and items.max() < layout.count), "a list has an item that there is not")


def _sizes(reader: _Reader, lists: int) -> list[int]:
    """Of the lists that follow; where most are empty, only the others are named."""
    how, found = reader.name(), reader.array("<u8")
    if how == b"full":
        _must(len(found) == lists, "it has another number of lists than it says")
        return found.tolist()
    _must(how == b"sprs" and len(found) % 2 == 0 and (found[::2] < lists).all(), "its lists are kept in another way")
    return found[1::2].tolist()
