"""Ready-made histories that are filled up to one length: which of their tokens are no items."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.data.files.table import Table

# What public files fill up with; RecBole's own token is the second.
_FILLERS = ("0", "[PAD]")


def leave_padding_out(dataset: Any, table: Table, described: Callable[[], pa.Array | None]) -> None:
    """Takes padding out of the histories of a data set that has just been read, with a warning.

    Args:
        dataset: an AtomicDataset of ready-made histories; its ``field2seqlen`` is changed.
        table: its interactions, changed.
        described: () -> ids that have a row in the item file; None without such a file.
    """
    field, targets = dataset.item_list_field, table.tokens[dataset.iid_field]

    def is_item(token: str) -> bool:
        text, ids = pa.array([token], pa.large_string()), described()
        return bool(targets.ids_of(text)[0]) or ids is not None and pc.index(ids, text[0]).as_py() >= 0

    lengths, found = _lengths(table.columns[field]), find_padding(list(table.columns[field]), is_item)
    if found is None:
        _name_doubtful(dataset, table.columns[field], is_item)
        return
    filler, begin, end = found
    dataset.logger.warning(
        f"{dataset.dataset_name}: {int((end - begin < lengths).sum())} of {len(lengths)} histories are filled up with "
        f"'{filler}', which is no target and has no row in .item: it is taken for padding, not for an item"
    )
    for name in [name for name in table.columns if name.endswith(RunKeys.of(dataset.config).LIST_SUFFIX)]:
        cells = table.columns[name]
        if cells.dtype == object and (_lengths(cells) == lengths).all():  # others are no histories
            cells[:] = [cell[first:last] for cell, first, last in zip(cells, begin, end, strict=True)]
            dataset.field2seqlen[name] = int(_lengths(cells).max())


def _lengths(cells: np.ndarray) -> np.ndarray:
    return np.array([len(cell) for cell in cells])


def _name_doubtful(dataset: Any, histories: np.ndarray, is_item: Callable[[str], bool]) -> None:
    """Warns of a token that may be meant as padding and stays an item."""
    for filler in _FILLERS:
        rows = sum(bool((history == filler).any()) for history in histories)
        if rows and not is_item(filler):
            dataset.logger.warning(
                f"{dataset.dataset_name}: '{filler}' in {rows} histories is taken for an item, though it is no target "
                "and has no row in .item: padding fills all histories up to one length, at their ends or at their "
                "beginnings; if it is meant as padding, take it out of the files"
            )


def find_padding(
    histories: Sequence[np.ndarray], is_item: Callable[[str], bool]
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """The token that histories are filled up with, and what is left of them without it.

    That is 0 or [PAD] where it is known as an item by nothing else, all histories (but empty ones) are of one length,
    and it stands at their ends only, or at their beginnings only.

    Args:
        histories: tokens of each row's history, oldest first.
        is_item: whether a token is a target or has a row in the item file.

    Returns:
        The token, and (R,) begin and end of the rest of each history; None where there is no padding.
    """
    lengths = np.array([len(history) for history in histories])
    rows = np.repeat(np.arange(len(lengths)), lengths)
    tokens = np.concatenate([np.empty(0, dtype=str), *histories])
    places = np.arange(len(tokens)) - (np.cumsum(lengths) - lengths)[rows]
    if len(set(lengths[lengths > 0].tolist())) != 1:  # an item 0 can be the last of one of these, or the first
        return None
    for filler in _FILLERS:
        filled = np.flatnonzero(tokens == filler)
        if len(filled) == 0 or is_item(filler):
            continue
        counts = np.bincount(rows[filled], minlength=len(lengths))
        if (places[filled] >= (lengths - counts)[rows[filled]]).all():
            return filler, np.zeros_like(lengths), lengths - counts
        if (places[filled] < counts[rows[filled]]).all():
            return filler, counts, lengths
    return None
