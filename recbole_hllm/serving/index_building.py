"""An index for what is served: built, measured against the exact one, kept in the export, and read again."""

import hashlib
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_hllm.errors import ConfigError, Damaged, ModelError
from recbole_hllm.serving.faiss_file import Layout, checked_layout
from recbole_hllm.serving.faiss_index import KINDS, MOST, FaissIndex, Measured, faiss_module, filled, neighbours
from recbole_hllm.serving.folder import VECTORS, UserHistories
from recbole_hllm.serving.index import ExactIndex
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import Served, ServedBlend
from recbole_hllm.storage.files import read_json, write_json, writing

logger = logging.getLogger(__name__)

INDEX, DESCRIBED = "index.faiss", "index.json"
MIN_RECALL, RECALL_AT, USERS = 0.95, 50, 1000
_LONGEST_RANDOM = 5  # items of a history that is made up
_DAY = 86_400.0
_BATCH = 64
_READ_AT_ONCE = 1 << 20


def build_index(
    served: Served,
    histories: UserHistories,
    kind: str,
    *,
    min_recall: float = MIN_RECALL,
    k: int = RECALL_AT,
    users: int = USERS,
    breadth: int | None = None,
) -> FaissIndex:
    """Builds an index, and finds the least effort of a search that is enough.

    Args:
        served: whose items are indexed.
        histories: of users that it is measured with; where there are none, random ones of 1 to 5 items.
        kind: flat, ivf or hnsw.
        min_recall: share of the best ``k`` items that must be found, on average over the users.
        k: see ``min_recall``.
        users: most that it is measured with.
        breadth: links of an item (hnsw, 32), or lists (ivf, four times the square root of the items).

    Raises:
        ConfigError: there is no such kind, or a number is out of its bounds.
        ModelError: the index does not find as many.
        MissingExtra: faiss is not installed.
    """
    if not 0 < min_recall <= 1:
        raise ConfigError(f"min_recall: {min_recall} is not above 0 and at most 1")
    if not 0 < k <= MOST or users < 1 or (breadth is not None and breadth < 2):
        raise ConfigError(f"k: {k} must be 1 to {MOST}, users: {users} at least 1, breadth: {breadth} at least 2")
    count = len(served.items) - 1
    if not count:
        raise ModelError("index: there are no items")
    check_index(served)
    begun = time.perf_counter()
    built = filled(served.items, kind, breadth)
    seconds = time.perf_counter() - begun
    asked, stored = _users(served, histories, users)
    k = min(k, count)
    best = ExactIndex(served).search(asked, k)[1]
    recall = 0.0
    for effort in KINDS[kind].efforts(count):
        recall = _share(neighbours(built, kind, asked, k, effort), best)
        if recall >= min_recall:
            measured = Measured(recall, k, len(asked), "stored" if stored else "random", effort, seconds)
            return FaissIndex(served, built, kind, measured)
    raise ModelError(
        f"index: {kind} finds {recall:.4f} of the best {k} items of {len(asked)} users with its greatest effort, and "
        f"min_recall is {min_recall}; ask for less, or for more {KINDS[kind].option} (breadth), or take flat"
    )


def check_index(served: Served) -> None:
    """Raises ModelError where no index helps."""
    if isinstance(served, ServedBlend) and served.scores_all:
        raise ModelError("index: a part of this model, such as EASE, scores all items without vectors; no index helps")


def _share(found: Tensor, best: Tensor) -> float:
    pairs = zip(found.tolist(), best.tolist(), strict=True)
    return sum(len({*some} & {*right}) for some, right in pairs) / best.numel()


def _users(served: Served, histories: UserHistories, most: int) -> tuple[Tensor, bool]:
    """(B, E) vectors of users, and whether their histories are stored ones."""
    random = np.random.default_rng(0)
    stored = [histories.of_user(user) for user in _some(list(histories.users), most, random)]
    stored = [(items[-served.length :], times[-served.length :]) for items, times in stored if items]
    of_all = stored or [_made_up(random, len(served.items)) for _ in range(most)]
    vectors = []
    for first in range(0, len(of_all), _BATCH):
        items, times = zip(*of_all[first : first + _BATCH], strict=True)
        rows = Rows.of(items, times, [own[-1] for own in times]).to(served.items.device)
        vectors.append(served.users(rows))
    return torch.cat(vectors), bool(stored)


def _some(users: list[str], most: int, random: np.random.Generator) -> list[str]:
    return [users[place] for place in random.permutation(len(users))[:most]]


def _made_up(random: np.random.Generator, items: int) -> tuple[list[int], list[float]]:
    length = int(random.integers(1, _LONGEST_RANDOM + 1))
    return random.integers(1, items, length).tolist(), [_DAY * day for day in range(length)]


# ---- in an export ----


def write_index(index: FaissIndex, folder: Path, min_recall: float = MIN_RECALL) -> None:
    """Writes ``index.faiss`` and ``index.json``, over those there are, into the export whose vectors it has.

    Raises:
        ConfigError: a file cannot be written.
    """
    described = {
        "kind": index.kind,
        "items": index.built.ntotal,
        **asdict(index.measured),
        "min_recall": min_recall,
        "vectors": digest(folder),
    }
    part = folder / f".{INDEX}.part"
    with writing(folder / INDEX):
        (folder / DESCRIBED).unlink(missing_ok=True)  # which would say the new file is the old one
        faiss_module().write_index(index.built, str(part))
        part.replace(folder / INDEX)
    write_json(folder / DESCRIBED, described)


def read_index(folder: Path, served: Served, kind: str) -> FaissIndex | None:
    """Reads the index of an export; None where there is none of this kind, or it is of earlier vectors.

    Raises:
        Damaged: a file is not what it should be.
        MissingExtra: faiss is not installed.
    """
    if not (folder / DESCRIBED).is_file():
        return None
    described = read_json(folder / DESCRIBED)
    measured = _measured(folder / DESCRIBED, described)
    if described.get("kind") != kind or described.get("vectors") != digest(folder):
        return None
    layout = checked_layout(folder / INDEX)
    if layout != Layout(kind, len(served.items) - 1, served.items.shape[1]):
        raise Damaged(
            f"{folder / INDEX} is not of these vectors: {layout}; build it again: recbole-hllm index {folder}"
        )
    return FaissIndex(served, faiss_module().read_index(str(folder / INDEX)), kind, measured)


def _measured(path: Path, described: Any) -> Measured:
    try:
        measured = Measured(**{name: described[name] for name in Measured.__dataclass_fields__})
        numbers = measured.recall, measured.seconds
        whole = all(type(number) is int and number > 0 for number in (measured.k, measured.users, measured.effort))
        if not whole or not all(isinstance(number, float | int) for number in numbers) or measured.effort > MOST:
            raise TypeError("numbers are out of their bounds")
    except (KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged: {error}; build the index again: recbole-hllm index {path.parent}") from error
    return measured


def ready_index(folder: Path, served: Served, histories: UserHistories, kind: str) -> FaissIndex:
    """The index of an export; it is built and written where there is none of this kind and of these vectors.

    Raises:
        ConfigError: there is no such kind, or the folder cannot be written.
        ModelError: an index that is built does not find enough, or one that is read is damaged.
        MissingExtra: faiss is not installed.
    """
    if kind not in KINDS:
        raise ConfigError(f"index: {kind!r} is not one of {', '.join(('exact', *KINDS))}")
    check_index(served)
    index = read_index(folder, served, kind)
    if index is None:
        logger.warning("%s has no %s index of its vectors: it is built", folder, kind)
        index = build_index(served, histories, kind)
        write_index(index, folder)
        logger.warning("%s: %s", folder / INDEX, in_words(index))
    return index


def in_words(index: FaissIndex) -> str:
    """What was measured, in a line."""
    found = index.measured
    return (
        f"{index.kind} of {index.built.ntotal:,} items: finds {found.recall:.4f} of the best {found.k} "
        f"({found.users:,} users, {found.histories} histories; effort {found.effort}); built in {found.seconds:.0f} s"
    )


def digest(folder: Path) -> str:
    """SHA-256 of the files that hold the vectors of an export, those of its parts too."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob(VECTORS)):
        found.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            while block := file.read(_READ_AT_ONCE):
                found.update(block)
    return found.hexdigest()
