"""Filters of interactions by how often users and items occur, before anything is written."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.data.raw.blocks import Block
from recbole_hllm.data.raw.ids import Counts

# Reads all interactions from the beginning.
Pass = Callable[[], Iterator[Block]]
# The rows of a block that stay, (rows,) bools.
Kept = Callable[[Block], pa.Array]
_LEAST = 5


def hllm_books(read: Pass) -> Kept:
    """The filter of HSTU's and HLLM's Amazon Books.

    The rows of every user and of every item are counted once. Rows whose user and whose item both have 5 or more stay,
    then the users who have fewer than 5 of these rows go. Items are not counted again; repeated rows count and stay.

    Args:
        read: all interactions; called twice.
    """
    users, items = Counts(), Counts()
    for block in read():
        users.add(block.columns["user_id"])
        items.add(block.columns["item_id"])
    frequent_users, frequent_items = users.ids(_LEAST), items.ids(_LEAST)

    def both(block: Block) -> pa.Array:
        return pc.and_(_among(block, "user_id", frequent_users), _among(block, "item_id", frequent_items))

    left = Counts()
    for block in read():
        left.add(block.columns["user_id"].filter(both(block)))
    kept_users = left.ids(_LEAST)
    return lambda block: pc.and_(_among(block, "user_id", kept_users), _among(block, "item_id", frequent_items))


FILTERS = {"hllm_books": hllm_books}


def _among(block: Block, column: str, ids: pa.Array) -> pa.Array:
    return pc.is_in(block.columns[column].cast(ids.type), ids)
