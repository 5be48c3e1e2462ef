"""Numbers of flat arrays, beside plain slow formulas."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm import Config, create_dataset
from recbole_hllm.data.rows.sequences import Sequences
from recbole_hllm.description import numbers
from recbole_hllm.description.numbers import (
    blocks,
    cores,
    counts_of,
    gini,
    histogram_edges,
    popularity,
    repeated,
    spread,
    targets,
)

ITEMS = 6
histories = st.lists(st.lists(st.integers(1, ITEMS - 1), max_size=9), min_size=1, max_size=9)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Every data set of these tests has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "BLOCK", 4)
        yield


def sequences_of(histories, times=None):
    lengths = [len(history) for history in histories]
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    items.flags.writeable = False  # as those that a cache maps
    times = np.zeros(len(items)) if times is None else np.array(times, dtype=np.float64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(items, times, offsets, np.arange(len(histories)))


@given(histories, st.integers(1, 12))
def test_blocks_are_whole_sequences_one_after_the_other(histories, size):
    offsets = sequences_of(histories).offsets
    found = list(blocks(offsets, size))
    assert [first for first, _ in found] + [len(histories)] == [0] + [after for _, after in found]
    assert all(after == first + 1 or offsets[after] - offsets[first] <= size for first, after in found)


@given(histories)
def test_an_item_that_was_there_before(histories):
    sequences = sequences_of(histories)
    expected = [item in history[:place] for history in histories for place, item in enumerate(history)]
    assert repeated(sequences.items, sequences.offsets, ITEMS).tolist() == expected


def slow_core(pairs, size):
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        left = [(user, item) for user, item in pairs if users[user] >= size and items[item] >= size]
        if len(left) == len(pairs):
            return {"k": size, "users": len(users), "items": len(items), "interactions": len(pairs)}
        pairs = left


@given(histories)
def test_cores_are_those_of_leaving_out_again_and_again(histories):
    pairs = [(user, item) for user, history in enumerate(histories) for item in history]
    found = cores(sequences_of(histories), ITEMS, (1, 2, 3, 4))
    assert found == [slow_core(pairs, size) for size in (1, 2, 3, 4)]


@pytest.mark.parametrize("seed", range(4))
def test_cores_are_what_recboles_filters_leave(write_dataset, tmp_path, seed):
    draw = random.Random(seed)
    rows = [(f"u{draw.randint(1, 30)}", f"i{draw.randint(1, 8) * draw.randint(1, 5)}", time) for time in range(150)]
    write_dataset(tmp_path, "toy", rows)
    keys = {"data_path": str(tmp_path), "use_gpu": False}

    def built(**filters):
        data = create_dataset(Config("Pop", "toy", config_dict={**keys, **filters}))
        data.build()
        return data

    whole = built()
    (found,) = cores(whole.sequences, whole.item_num, (4,))
    left = built(user_inter_num_interval="[4,inf)", item_inter_num_interval="[4,inf)").statistics()
    assert found == {"k": 4, **{name: left[name] for name in ("users", "items", "interactions")}}
    assert 0 < found["interactions"] < 150


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_spread_of_numbers(values):
    found = spread(np.array(values))
    assert found["count"] == len(values) and found["mean"] == pytest.approx(sum(values) / len(values))
    for name, share in numbers.QUANTILES.items():
        enough = [value for value in values if sum(one <= value for one in values) >= share * len(values) - 1e-9]
        assert found["quantiles"][name] == min(enough)
    for row in found["histogram"]:
        assert row["count"] == sum(row["from"] <= value <= row["to"] for value in values)
    assert sum(row["count"] for row in found["histogram"]) == len(values)


def test_bins_are_as_long_as_their_numbers_are_large():
    assert histogram_edges(20).tolist() == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert spread(np.array([], dtype=int)) is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_gini_is_half_the_mean_difference_over_the_mean(counts):
    differences = np.abs(np.subtract.outer(counts, counts)).mean()
    assert gini(np.array(counts)) == pytest.approx(differences / (2 * np.mean(counts)))


def test_the_share_of_the_most_popular():
    found = popularity(np.array([1, 6, 1, 1, 1, 4, 2, 2, 1, 1]))
    shares = {row["share"]: (row["items"], row["interactions"]) for row in found["top"]}
    assert shares[0.01] == (1, 0.3), "at least one item"
    assert shares[0.2] == (2, 0.5) and shares[0.5] == (5, 0.75)


@given(histories)
def test_counts_are_those_of_all_blocks(histories):
    items = sequences_of(histories).items
    assert counts_of(items, ITEMS).tolist() == [(items == item).sum() for item in range(ITEMS)]


def test_targets_are_cold_leaked_tied_or_of_new_users():
    sequences = sequences_of([[1, 2, 1, 1], [2, 3, 4], [3, 3]], times=[0, 1, 1, 2, 5, 6, 6, 0, 0])
    again = repeated(sequences.items, sequences.offsets, ITEMS)
    same = np.array([0, 0, 1, 0, 0, 0, 1, 0, 1], dtype=bool)
    training_counts = np.array([0, 1, 2, 0, 0, 0])  # of 1, 2 | 2
    found = targets(sequences, np.array([2, 3, 5, 6, 8]), training_counts, np.array([2, 1, 0]), again, same)
    assert found == {
        "targets": 5, "users": 3, "cold": 3, "cold_items": 2, "new_users": 1, "leaked": 3, "tied": 3,
    }  # fmt: skip
    assert targets(sequences, np.array([2]), training_counts, np.array([2, 1, 0]), again, None)["tied"] is None
