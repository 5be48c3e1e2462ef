"""A data set of which every number can be counted by hand."""

import pytest

from recbole_hllm.description.describe import describe

START = 1_000_000_000
# alice: a and b at one time, a again, d at the time of the second a. Of chris, who has three items, only the last is
# held out; of dora, who has one, none.
ROWS = [
    ("alice", "a", 0), ("alice", "b", 0), ("alice", "c", 10), ("alice", "a", 20), ("alice", "d", 20),
    ("bob", "a", 5), ("bob", "b", 6), ("bob", "c", 7), ("bob", "e", 8),
    ("chris", "b", 1), ("chris", "c", 2), ("chris", "a", 3), ("dora", "c", 4),
]  # fmt: skip
# c has no text, e no row, z no interaction.
ITEMS = (
    "item_id:token\ttitle:token_seq\tbrand:token_seq",
    [("a", "w1 w2", "w3"), ("b", "w1 w2", "w3"), ("c", "", ""), ("d", "w4 w5", ""), ("z", "w6", "")],
)


@pytest.fixture
def hand(write_dataset, tmp_path):
    """(keys) -> the description of the data set ``hand``."""
    rows = [(user, item, START + time) for user, item, time in ROWS]
    write_dataset(tmp_path, "hand", rows, items=ITEMS)

    def make(folder=tmp_path / "out", **keys):
        settings = {"data_path": str(tmp_path), "use_gpu": False, **keys}
        return describe(None, "hand", config_dict=settings, folder=folder)

    return make
