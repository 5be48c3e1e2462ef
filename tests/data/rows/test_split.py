"""Histories and their targets against plain loops over users."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.rows.columns import TARGET_ITEMS
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.data.rows.split import SplitRows, split_by_position, split_by_time
from recbole_hllm.errors import ConfigError, DataError

DAY = 86_400


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)])


def plain_by_position(lengths, history, targets, every):
    rows, first = [], 0
    for length in lengths:
        own, end = [], length
        while end >= 2:
            cut = max(end - targets, 1)
            own.append((first + max(cut - history, 0), first + cut, first + end))
            end -= targets
            if not every:
                break
        rows += own[::-1]
        first += length
    return rows


lengths_of_users = st.lists(st.integers(0, 12), min_size=1, max_size=6)


@given(lengths_of_users, st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_by_position(lengths, history, targets, every):
    read, wanted = split_by_position(offsets_of(lengths), history, targets, every)
    assert np.array_equal(read[:, 1], wanted[:, 0])
    assert list(zip(*read.T, wanted[:, 1], strict=True)) == plain_by_position(lengths, history, targets, every)


@given(lengths_of_users, st.integers(1, 5), st.integers(1, 5))
def test_every_event_but_the_first_is_a_target_once(lengths, history, targets):
    _, wanted = split_by_position(offsets_of(lengths), history, targets, every=True)
    seen = sorted(place for begin, end in wanted for place in range(begin, end))
    firsts = set(offsets_of(lengths)[:-1][np.array(lengths) > 0])
    assert seen == [place for place in range(sum(lengths)) if place not in firsts]


def plain_by_time(times, lengths, history, targets, every):
    latest, rows, first = max(times), [], 0
    for length in lengths:
        own, places = [], range(first, first + length)
        period = 0
        while any(times[place] <= latest - period * targets[1] for place in places) and (every or period == 0):
            end_time, begin_time = latest - period * targets[1], latest - (period + 1) * targets[1]
            wanted = [place for place in places if begin_time < times[place] <= end_time][-targets[0] :]
            inside = [place for place in places if begin_time - history[1] < times[place] <= begin_time]
            read = inside[-history[0] :]
            if wanted and read:
                own.append((read[0], read[-1] + 1, wanted[0], wanted[-1] + 1))
            period += 1
        rows += own[::-1]
        first += length
    return rows


@given(
    st.lists(st.lists(st.integers(0, 60), min_size=0, max_size=8), min_size=1, max_size=5).filter(any),
    st.tuples(st.integers(1, 4), st.sampled_from([5, 20])),
    st.tuples(st.integers(1, 4), st.sampled_from([3, 10])),
    st.booleans(),
)
def test_by_time(times, history, targets, every):
    times = [sorted(user) for user in times]
    lengths, flat = [len(user) for user in times], [time for user in times for time in user]
    read, wanted = split_by_time(np.array(flat, dtype=float), offsets_of(lengths), history, targets, every)
    assert list(zip(*read.T, *wanted.T, strict=True)) == plain_by_time(flat, lengths, history, targets, every)


ROWS = [("u1", f"i{item}", item * DAY) for item in range(1, 8)] + [("u2", "i9", 3 * DAY), ("u2", "i8", 4 * DAY)]
LEARN = {"content": "id", "target_length": 2, "MAX_ITEM_LIST_LENGTH": 3}


@pytest.fixture
def toy(tmp_path, write_dataset):
    """u1 has i1 to i7, one a day; u2 has two items, which are both training data."""
    rows = [(user, item, 1_000_000_000 + time) for user, item, time in ROWS]
    write_dataset(tmp_path, "toy", rows)


def tokens(part, rows, field):
    names = part.field2id_token["item_id"]
    return [[names[item] for item in row if item] for row in rows[field].tolist()]


def test_rows_of_the_training_part(toy, built):
    """u1 may be trained on five items, of which rows of two targets are cut from the end."""
    whole, train, valid, test = built("LEARN", **LEARN)
    rows = train[torch.arange(len(train))]
    assert tokens(train, rows, "item_id_list") == [["i1"], ["i1", "i2", "i3"], ["i9"]]
    assert tokens(train, rows, TARGET_ITEMS) == [["i2", "i3"], ["i4", "i5"], ["i8"]]
    assert rows["item_length"].tolist() == [1, 3, 1] and rows[TARGET_ITEMS].shape == (3, 2)
    assert rows["item_id_list"].shape == (3, 3) and type(train.rows) is SplitRows
    assert tokens(test, test[[0]], "item_id_list") == [["i4", "i5", "i6"]] and type(valid.rows) is PrefixRows


def test_the_latest_row_alone(toy, built):
    train = built("LEARN", **LEARN, data_split=False)[1]
    rows = train[[0, 1]]
    assert len(train) == 2 and tokens(train, rows, TARGET_ITEMS) == [["i4", "i5"], ["i8"]]


def test_rows_by_time(toy, built):
    """The latest training interaction is i5 of day 5: targets are of days 4 and 5, histories of 2 days before."""
    keys = {**LEARN, "split_by": "time", "target_days": 2, "history_days": 2, "data_split": False}
    train = built("LEARN", **keys)[1]
    rows = train[torch.arange(len(train))]
    assert tokens(train, rows, "item_id_list") == [["i2", "i3"], ["i9"]]
    assert tokens(train, rows, TARGET_ITEMS) == [["i4", "i5"], ["i8"]]


def test_nobody_has_targets_in_the_period(toy, built):
    keys = {"split_by": "time", "target_days": 0.5, "history_days": 0.2, "data_split": False}
    with pytest.raises(DataError, match="split_by: time: none of 2 users .* 0.5 days after 0.2"):
        built("LEARN", **LEARN, **keys)


def test_one_user_has_no_negatives(tmp_path, write_dataset, built):
    write_dataset(tmp_path, "toy", [("u1", f"i{item}", item) for item in range(6)])
    with pytest.raises(DataError, match="only user number 1 has .*nothing to learn from one user"):
        built("LEARN", **LEARN)


def test_ready_made_histories_are_refused(tmp_path, write_dataset, built):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    for part in ("train", "valid", "test"):
        write_dataset(tmp_path, "toy", [("u1", "i1 i2", "i3")], header=header, suffix=f"{part}.inter")
    keys = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"]}
    keys["load_col"] = {"inter": ["user_id", "item_id_list", "item_id"]}
    with pytest.raises(ConfigError, match="LEARN cuts histories and targets itself"):
        built("LEARN", **LEARN, **keys)
