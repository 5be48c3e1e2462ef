"""Splits and windows over flat arrays, against loops a child could write."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.data.rows import sequences as seq


def make(histories, times=None):
    """Sequences of histories, one per user 1, 2, ...; user 0 is the padding user."""
    users = np.repeat(np.arange(1, len(histories) + 1), [len(history) for history in histories])
    items = np.array([item for history in histories for item in history], dtype=np.int64)
    times = np.arange(len(items), dtype=float) if times is None else np.array(times, dtype=float)
    return seq.Sequences.from_sorted(users, items, times, len(histories) + 1)


HISTORIES = st.lists(st.lists(st.integers(1, 30), max_size=14), min_size=1, max_size=6)


def test_flat_layout():
    sequences = make([[5, 6], [], [7]])
    assert sequences.items.tolist() == [5, 6, 7]
    assert sequences.offsets.tolist() == [0, 0, 2, 2, 3]
    assert sequences.lengths.tolist() == [0, 2, 0, 1]
    assert sequences.of(np.array([0, 1, 2])).tolist() == [1, 1, 3]


def targets_of(histories):
    """Every position but each user's first."""
    targets, position = [], 0
    for history in histories:
        targets += range(position + 1, position + len(history))
        position += len(history)
    return targets


# ---- leave one out ----


@pytest.mark.parametrize(
    ("mode", "length", "train", "valid", "test"),
    [
        ("valid_and_test", 1, [], [], []),
        ("valid_and_test", 2, [1], [], []),
        ("valid_and_test", 3, [1], [], [2]),
        ("valid_and_test", 4, [1], [2], [3]),
        ("valid_and_test", 6, [1, 2, 3], [4], [5]),
        ("valid_only", 2, [1], [], []),
        ("valid_only", 3, [1], [2], []),
        ("test_only", 3, [1], [], [2]),
        ("test_only", 5, [1, 2, 3], [], [4]),
    ],
)
def test_leave_one_out_of_one_user(mode, length, train, valid, test):
    split = seq.leave_one_out(make([list(range(1, length + 1))]), mode)
    assert [list(part) for part in (split.train, split.valid, split.test)] == [train, valid, test]
    assert split.train_lengths.tolist() == [0, len(train) + 1]


def test_short_users_are_tested_as_the_official_code_does():
    split = seq.leave_one_out(make([[1, 2, 3], [4, 5], [6]]), "valid_and_test", short_users_tested=True)
    assert (list(split.train), list(split.valid), list(split.test)) == ([], [1], [2, 4])
    assert split.train_lengths.tolist() == [0, 1, 1, 1]


@given(HISTORIES, st.sampled_from(["valid_and_test", "valid_only", "test_only"]), st.booleans())
def test_every_target_is_in_one_part_and_earlier_parts_come_first(histories, mode, short):
    sequences = make(histories)
    split = seq.leave_one_out(sequences, mode, short)
    parts = [np.asarray(part) for part in (split.train, split.valid, split.test)]
    assert sorted(np.concatenate(parts)) == targets_of(histories)
    for user in range(1, len(histories) + 1):
        own = [part[sequences.of(part) == user] for part in parts]
        assert np.concatenate(own).tolist() == sorted(np.concatenate(own))
        assert len(own[1]) <= 1 and len(own[2]) <= 1


# ---- ratios and times ----


def halves(total):
    return [total // 2, total - total // 4]


def test_ratio_inside_each_user():
    split = seq.by_ratio(make([[1] * 9, [2] * 2, [3]]), halves)
    assert list(split.train) == [1, 2, 3, 4]  # of user 2's one target, none is in the first half
    assert list(split.valid) == [5, 6, 10]
    assert list(split.test) == [7, 8]
    assert split.train_lengths.tolist() == [0, 5, 1, 1]


def test_ratio_over_all_users_follows_time():
    sequences = make([[1, 2, 3], [4, 5, 6]], times=[0, 10, 40, 5, 20, 30])
    split = seq.by_global_ratio(sequences, halves)
    assert (list(split.train), list(split.valid), list(split.test)) == ([1, 4], [5], [2])
    assert split.train_lengths.tolist() == [0, 2, 2]


def test_equal_times_are_split_in_order_inside_a_user():
    split = seq.by_global_ratio(make([[1, 2, 3], [4, 5, 6]], times=[7] * 6), halves)
    assert (list(split.train), list(split.valid), list(split.test)) == ([1, 2], [4], [5])


def test_a_user_who_comes_later_brings_no_training_data():
    split = seq.by_global_ratio(make([[1, 2, 3], [4, 5]], times=[0, 1, 2, 0, 9]), lambda total: [2, 2])
    assert (list(split.train), list(split.valid), list(split.test)) == ([1, 2], [], [4])
    assert split.train_lengths.tolist() == [0, 3, 0]


def test_time_split_cuts_at_a_point_in_time_and_the_rest_inside_users():
    sequences = make([[1, 2, 3, 4], [5, 6, 7]], times=[0, 1, 2, 9, 0, 3, 4])
    split = seq.by_time(sequences, [4, 4, 2])  # targets at 1 2 3 4 9: the boundary is their 80th percentile, 5
    assert list(split.test) == [3]
    assert (list(split.train), list(split.valid)) == ([1, 5], [2, 6])
    assert split.train_lengths.tolist() == [0, 2, 2]


def test_files_decide():
    split = seq.by_file(make([[1, 2, 3, 4], [5], [6, 7]]), np.array([0, 0, 1, 2, 2, 1, 2]))
    assert (list(split.train), list(split.valid), list(split.test)) == ([1], [2], [3, 6])
    assert split.train_lengths.tolist() == [0, 2, 0, 0]


TIMED = st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=6).filter(
    lambda users: any(len(times) > 1 for times in users)
)


def timed(users):
    """Sequences with these times, and (position, rank of the target in its sequence, sequence, time) of all targets."""
    sequences = make([[1] * len(times) for times in users], [time for times in users for time in sorted(times)])
    targets = targets_of(users)
    owners = sequences.of(np.array(targets))
    ranks = targets - sequences.offsets[owners] - 1
    return sequences, list(zip(targets, ranks.tolist(), owners.tolist(), sequences.timestamps[targets], strict=True))


def parts_of(split):
    return [list(part) for part in (split.train, split.valid, split.test)]


def thirds(total):
    return [total // 3, total - total // 3]


@given(TIMED)
def test_ratios_over_all_users_are_those_of_one_sorted_list(users):
    sequences, targets = timed(users)
    ordered = [target[0] for target in sorted(targets, key=lambda target: (target[3], target[0]))]
    first, second = thirds(len(ordered))
    expected = [sorted(part) for part in (ordered[:first], ordered[first:second], ordered[second:])]
    split = seq.by_global_ratio(sequences, thirds)
    assert parts_of(split) == expected
    owners = [owner for position, _, owner, _ in targets if position in expected[0]]
    trained = [owners.count(user) for user in range(len(users) + 1)]
    assert split.train_lengths.tolist() == [count + 1 if count else 0 for count in trained]


@given(TIMED)
def test_ratios_inside_users_are_those_of_each_list(users):
    sequences, targets = timed(users)
    expected = [[], [], []]
    for position, rank, owner, _ in targets:
        first, second = thirds(len(users[owner - 1]) - 1)
        expected[(rank >= first) + (rank >= second)].append(position)
    assert parts_of(seq.by_ratio(sequences, thirds)) == expected


@given(TIMED, st.sampled_from([[6, 2, 2], [1, 0, 1], [5, 4, 1]]))
def test_a_split_by_time_is_that_of_the_percentile(users, ratios):
    sequences, targets = timed(users)
    train, valid, test = (ratio / sum(ratios) for ratio in ratios)
    boundary = np.percentile([target[3] for target in targets], 100 * (1 - test))
    expected = [[], [], []]
    for position, rank, owner, time in targets:
        before = sum(target[2] == owner and target[3] <= boundary for target in targets)
        part = 2 if time > boundary else int(rank >= int(before * (train / (1 - test))))
        expected[part].append(position)
    assert parts_of(seq.by_time(sequences, ratios)) == expected
    whole = seq.Sequences(sequences.items, sequences.timestamps.astype(np.int32), sequences.offsets, sequences.users)
    assert parts_of(seq.by_time(whole, ratios)) == expected, "times as whole numbers"


# ---- ready-made histories ----


def from_rows(rows):
    """Sequences of (user, history, target) rows."""
    width = max(len(history) for _, history, _ in rows)
    padded = np.array([history + [0] * (width - len(history)) for _, history, _ in rows])
    lengths = np.array([len(history) for _, history, _ in rows])
    users, targets = np.array([row[0] for row in rows]), np.array([row[2] for row in rows])
    return seq.Sequences.from_histories(users, padded, lengths, targets, np.arange(len(rows), dtype=float))


def test_histories_are_laid_out_with_their_targets():
    sequences = from_rows([(1, [4, 5], 6), (2, [7], 8), (1, [4, 5, 6], 9)])
    assert sequences.items.tolist() == [4, 5, 6, 7, 8, 4, 5, 6, 9]
    assert sequences.offsets.tolist() == [0, 3, 5, 9]
    assert sequences.timestamps.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_a_rows_last_item_is_its_only_target():
    rows = [(1, [4], 5), (1, [4, 5], 6), (2, [7, 8], 9), (1, [4, 5, 6], 3), (2, [], 1), (2, [7, 8, 9], 4)]
    split = seq.by_row(from_rows(rows), np.array([0, 0, 0, 1, 2, 2]))
    assert (list(split.train), list(split.valid), list(split.test)) == ([1, 4, 7], [11], [16])


def test_windows_are_cut_from_rows_that_no_longer_row_contains():
    rows = [(1, [4, 5], 6), (1, [4], 5), (2, [4, 5], 6), (1, [4, 9], 6), (1, [4, 5, 6], 7)]
    lengths = seq.by_row(from_rows(rows), np.array([0, 0, 0, 0, 1])).train_lengths
    assert lengths.tolist() == [3, 0, 3, 3, 0]
    chain = [(1, list(range(1, n)), n) for n in range(2, 8)]
    assert seq.by_row(from_rows(chain), np.zeros(6, dtype=int)).train_lengths.tolist() == [0, 0, 0, 0, 0, 7]


# ---- windows ----


def windows_of(lengths, size, chunk=True, overlap=1):
    lengths = np.array(lengths)
    start = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    return seq.Windows(start, lengths, size, chunk, overlap)[:]


def naive(lengths, size, chunk, overlap):
    """From the end of each sequence, size items at a time, sharing `overlap` with the window before."""
    result, start = [], 0
    for length in lengths:
        own, end = [], length
        while length >= 2 and end > (overlap if own else 0):
            own.insert(0, (start + max(end - size, 0), start + end))
            end -= size - overlap
            if not chunk or overlap == 0 and end < size:  # the official code keeps full windows only, but for one
                break
        result += own
        start += length
    return result


@settings(max_examples=300)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(2, 12), st.booleans(), st.integers(0, 1))
def test_windows_are_those_of_a_loop(lengths, size, chunk, overlap):
    assert [tuple(window) for window in windows_of(lengths, size, chunk, overlap)] == naive(
        lengths, size, chunk, overlap
    )


@settings(max_examples=300)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(2, 12))
def test_every_position_but_the_first_is_a_target_once(lengths, size):
    targets = [position for begin, end in windows_of(lengths, size) for position in range(begin + 1, end)]
    expected, start = [], 0
    for length in lengths:
        expected += range(start + 1, start + length)
        start += length
    assert targets == expected
    assert all(2 <= end - begin <= size for begin, end in windows_of(lengths, size))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(2, 12))
def test_without_chunks_the_last_items_are_one_window(lengths, size):
    ends = np.cumsum(lengths)
    expected = [(end - min(length, size), end) for length, end in zip(lengths, ends, strict=True) if length >= 2]
    assert [tuple(window) for window in windows_of(lengths, size, chunk=False)] == expected


# ---- numbers of the official code ----


def golden_folder(request):
    """The folder that the tests of the official code's numbers use, HLLM_GOLDENS included."""
    default = request.config.rootpath / "tests" / "golden" / "data" / "hllm"
    root = Path(os.environ.get("HLLM_GOLDENS") or default)
    return root if (root / "settings.json").is_file() else root / "hllm"


@pytest.mark.parametrize(("chunk", "key"), [(True, "default"), (False, "false")])
def test_reference_chunks_are_the_official_codes(request, chunk, key):
    root = golden_folder(request)
    size = json.loads((root / "settings.json").read_text())["MAX_ITEM_LIST_LENGTH"] + 1
    splits = json.loads((root / "splits.json").read_text())
    expected = splits.get(f"train_sequences_data_split_{key}")
    if expected is None:
        pytest.skip("these files have no such training sequences")
    histories = [items for _, items in splits["user_seq"]]
    sequences = make(histories)
    split = seq.leave_one_out(sequences, "valid_and_test", short_users_tested=True)
    cut = seq.Windows(sequences.offsets[:-1], split.train_lengths, size, chunk, overlap=0)[:]
    rows = [[splits["user_seq"][sequences.of(begin) - 1][0], sequences.items[begin:end].tolist()] for begin, end in cut]
    assert rows == [[user, items[-size:]] for user, items in expected if len(items) >= 2]
