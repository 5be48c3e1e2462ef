"""Every row that is left out is counted in the log."""

import logging
import re

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
LEFT_OUT = re.compile(r"(.*): (\d+) of (\d+) interactions are left out")


@pytest.fixture
def rated(write_dataset, tmp_path, random_rows, caplog):
    """Rated interactions of 25 users with 12 items, of which i1 to i9 and five users have a row; the log is kept."""
    caplog.set_level(logging.INFO)
    rows = random_rows(users=25, items=12, longest=14, seed=9, rated=True)
    items = ("item_id:token\tprice:float", [(f"i{number}", number) for number in [*range(1, 10), 77, 78]])
    users = ("user_id:token\tsex:token", [(f"u{number}", "f") for number in [*range(5), 99]])
    write_dataset(tmp_path, "toy", rows, header=HEADER, items=items, users=users)
    return rows


@pytest.mark.parametrize(
    "keys",
    [
        {"user_inter_num_interval": "[8,inf)"}, {"item_inter_num_interval": "[15,inf)"},
        {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[8,inf)"},
        {"val_interval": {"rating": "[3,inf)"}}, {"val_interval": {"price": "[3,8]"}}, {"rm_dup_inter": "first"},
        {"filter_inter_by_user_or_item": True},
        {"rm_dup_inter": "last", "user_inter_num_interval": "[4,inf)", "val_interval": {"rating": "[2,5]"}},
    ],
    ids=str,
)  # fmt: skip
def test_filters_count_what_they_leave_out(rated, built, caplog, keys):
    whole, *_ = built("SASRec", **keys)
    left, told = len(rated), []
    for match in filter(None, map(LEFT_OUT.fullmatch, caplog.messages)):
        assert int(match[3]) == left
        left -= int(match[2])
        told += match[1].split(", ")
    assert left == len(whole.timestamps) < len(rated)
    assert set(keys) <= set(told)


def test_filters_that_leave_nothing_out_say_nothing(rated, built, caplog):
    built("SASRec", user_inter_num_interval="[1,inf)", val_interval={"rating": "[1,5]"})
    assert not [message for message in caplog.messages if LEFT_OUT.fullmatch(message)]


def test_rows_of_files_without_an_interaction(rated, built, caplog):
    """Items i77 and i78, and user u99."""
    built("SASRec", load_col=None)
    assert "toy.item: 2 of 11 rows are left out, of which there is no interaction" in caplog.messages
    assert "toy.user: 1 of 6 rows are left out, of which there is no interaction" in caplog.messages


def test_cells_that_are_cut(write_dataset, built, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [(f"u{user}", f"i{number}", number) for user in range(4) for number in range(5)]
    items = ("item_id:token\ttitle:token_seq", [(f"i{number}", " ".join("abcde"[:number])) for number in range(5)])
    write_dataset(tmp_path, "toy", rows, items)
    built("SASRec", load_col=None, seq_len={"title": 2})
    assert [message.rpartition("toy.item: ")[2] for message in caplog.messages if "seq_len" in message] == [
        "2 of 5 cells of title are cut to 2 (seq_len)"
    ]


@pytest.mark.parametrize(
    "keys",
    [{"train_user_fraction": 0.5}, {"train_min_items": 4}, {"train_first_items": 3}, {"train_user_fraction": 1.0}],
    ids=str,
)
def test_training_targets_that_keys_leave_out(rated, built, caplog, keys):
    _, whole, *_ = built("SASRec")
    caplog.clear()
    _, train, *_ = built("SASRec", **keys)
    said = [message for message in caplog.messages if "training targets are kept" in message]
    if len(train) == len(whole):
        assert said == []
    else:
        assert said == [f"{next(iter(keys))}: {len(train)} of {len(whole)} training targets are kept"]


def test_one_row_a_user(rated, built, caplog):
    _, whole, *_ = built("SASRec")
    caplog.clear()
    _, train, *_ = built("E4SRec", training_rows="user", item_embed_dim=8)
    assert len(train) < len(whole)
    assert f"the last of each user: {len(train)} of {len(whole)} training targets are kept" in caplog.messages


@pytest.mark.parametrize(
    "keys, some", [({"data_split": False}, True), ({"reference": ["chunks"]}, True), ({}, False)], ids=str
)
def test_interactions_that_no_window_holds(rated, built, caplog, keys, some):
    whole, train, *_ = built("HLLM", MAX_ITEM_LIST_LENGTH=3, **keys)
    said = [message for message in caplog.messages if message.startswith("windows of")]
    if not some:
        assert said == []
        return
    held = {position for begin, end in train.rows.windows[:] for position in range(begin, end)}
    everything = len(whole.training_positions)
    assert said == [f"windows of at most 4 hold {len(held)} of {everything} training interactions"]
    assert len(held) < everything


@pytest.mark.parametrize("split", [{"TS": [0.6, 0.2, 0.2]}, {"RS": [0.6, 0.2, 0.2]}], ids=str)
def test_users_with_one_interaction(write_dataset, built, tmp_path, random_rows, caplog, split):
    caplog.set_level(logging.INFO)
    rows = random_rows(users=10, longest=9, seed=2) + [(f"alone{number}", "i1", 50 + number) for number in range(3)]
    counts = [sum(row[0] == user for row in rows) for user in {row[0] for row in rows}]
    write_dataset(tmp_path, "toy", rows)
    built("SASRec", eval_args={"split": split, "order": "TO", "group_by": "none", "mode": "full"})
    said = "users have one interaction and are neither trained on a target nor tested"
    assert f"{counts.count(1)} {said}" in caplog.messages
