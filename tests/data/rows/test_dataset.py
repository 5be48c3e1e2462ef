"""Rows equal RecBole's where RecBole is right, are in time order where it is not, and do not depend on the model."""

import random

import numpy as np
import pytest
import recbole
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recbole.data.dataset import SequentialDataset

from recbole_hllm import Config, create_dataset
from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

LOAD = {"inter": ["user_id", "item_id", "rating", "timestamp"]}
HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"


def eval_args(split, group_by="user"):
    return {"split": split, "group_by": group_by, "order": "TO", "mode": "full"}


# ---- as RecBole's, on data whose order RecBole gets right ----

SPLITS = [
    eval_args({"LS": "valid_and_test"}),
    eval_args({"LS": "valid_only"}),
    eval_args({"LS": "test_only"}),
    eval_args({"RS": [0.8, 0.1, 0.1]}),
    eval_args({"RS": [3, 1, 1]}),
    eval_args({"RS": [0.5, 0.0, 0.5]}),
    eval_args({"RS": [0.8, 0.1, 0.1]}, "none"),
]
if recbole.__version__ != "1.2.0":  # which has no split by time to compare with
    SPLITS += [eval_args({"TS": [0.6, 0.2, 0.2]}), eval_args({"TS": [0.9, 0.0, 0.1]})]


@pytest.mark.parametrize("args", SPLITS, ids=lambda args: f"{args['split']}-{args['group_by']}")
@pytest.mark.parametrize("seed", [0, 1])
def test_prefix_rows_equal_recboles(write_dataset, toy_config, tmp_path, random_rows, same_parts, args, seed):
    write_dataset(tmp_path, "toy", random_rows(users=15, seed=seed, rated=True), header=HEADER)
    same_parts(toy_config(load_col=LOAD, eval_args=args))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(1, 15), st.integers(1, 9), st.sampled_from(SPLITS))
def test_prefix_rows_equal_recboles_on_any_data(
    write_dataset, toy_config, tmp_path, random_rows, same_parts, seed, users, longest, length, args
):
    rows = random_rows(users=users, items=8, longest=longest, seed=seed, rated=True)
    write_dataset(tmp_path, "toy", rows + [("long", f"i{n}", 3, n) for n in range(1, 6)], header=HEADER)
    try:
        same_parts(toy_config(load_col=LOAD, eval_args=args, MAX_ITEM_LIST_LENGTH=length))
    except DataError as error:  # a global split may leave a phase without rows, which RecBole lets through
        assert "left to" in str(error)


@pytest.mark.parametrize("args", [SPLITS[0], SPLITS[3], *SPLITS[7:8]], ids=["LS", "RS", *["TS"] * len(SPLITS[7:8])])
def test_prefix_rows_equal_recboles_on_ml_100k(write_dataset, toy_config, tmp_path, same_parts, args):
    """RecBole's example data, for each user the first interaction of every moment RecBole can tell apart."""
    source = create_dataset(toy_config(dataset="ml-100k", load_col=LOAD, normalize_all=None))
    feat, times = source.inter_feat, source.timestamps
    seen, rows = set(), []
    for user, item, rating, time in zip(feat["user_id"], feat["item_id"], feat["rating"], times, strict=True):
        moment = np.float32(time)
        if user <= 60 and moment not in seen:  # globally, so that no split of RecBole's cuts between equal times
            seen.add(moment)
            rows.append((f"u{user}", f"i{item}", rating, time))
    if "TS" in args["split"]:  # RecBole rounds the boundary of this split to float32, too
        ranks = {time: 4 * rank for rank, time in enumerate(sorted(row[3] for row in rows))}
        rows = [(*row[:3], ranks[row[3]]) for row in rows]
    random.Random(0).shuffle(rows)
    write_dataset(tmp_path, "toy", rows, header=HEADER)
    parts, _ = same_parts(toy_config(load_col=LOAD, eval_args=args, MAX_ITEM_LIST_LENGTH=20))
    assert len(parts[0]) > 1000


def test_rows_with_features_equal_recboles(write_dataset, toy_config, tmp_path, random_rows, same_parts):
    """Sequences, numbers and tokens of all three files, missing cells, and numbers to be embedded."""
    rng = random.Random(3)
    choose = rng.choice
    rows = [(*row, rng.random(), choose(["", "a", "a b", "a b c"]), choose(["1", "1 2.5"])) for row in random_rows()]
    header = "user_id:token\titem_id:token\ttimestamp:float\trating:float\ttags:token_seq\tmarks:float_seq"
    colours, kinds = ["", "red", "blue"], ["", "x y", "z"]
    items = [(f"i{n}", choose(colours), choose(kinds), n / 7 if n % 5 else "") for n in range(1, 16)]
    users = [(f"u{n}", choose(["f", "m"])) for n in range(12)]
    write_dataset(
        tmp_path, "toy", rows, header=header,
        items=("item_id:token\tcolour:token\tkinds:token_seq\tprice:float", items),
        users=("user_id:token\tsex:token", users),
    )  # fmt: skip
    parts, _ = same_parts(toy_config(load_col=None, numerical_features=["rating"]))
    row = parts[0][[0]]
    assert row["rating_list"].shape == (1, 5, 2) and row["tags_list"].shape == (1, 5, 3)
    assert row["kinds"].shape == (1, 2) and row["sex"].shape == (1,)


def test_columns_dropped_after_preparation(write_dataset, toy_config, tmp_path, random_rows, same_parts):
    write_dataset(tmp_path, "toy", random_rows(rated=True), header=HEADER)
    unused = {"inter": ["rating", "timestamp_list"]}
    parts, _ = same_parts(toy_config(load_col=LOAD, unused_col=unused))
    assert {"rating_list", "timestamp"} <= set(parts[0][[0]].interaction)
    assert not {"rating", "timestamp_list"} & set(parts[0][[0]].interaction)


# ---- time order ----


def times_apart(step, users=4, per_user=8, seed=0):
    """(user, item, time) rows, `step` seconds apart, and each user's items in time order."""
    rows, expected = [], {}
    for user in range(users):
        items = [f"i{user}_{number}" for number in range(per_user)]
        expected[f"u{user}"] = items
        rows += [(f"u{user}", item, f"{1_600_000_000 + number * step:.3f}") for number, item in enumerate(items)]
    random.Random(seed).shuffle(rows)
    return rows, expected


@pytest.mark.parametrize("unit", [1, 1000, 10**6], ids=["seconds", "milliseconds", "microseconds"])
@pytest.mark.parametrize("model", ["SASRec", "HLLM", "Pop"])
@pytest.mark.parametrize("seed", [0, 1])
def test_close_times_come_out_in_time_order(write_dataset, built, tmp_path, model, unit, seed):
    rows, expected = times_apart(1 / unit if unit == 1000 else 1, seed=seed)
    rows = [(user, item, f"{float(time) * unit:.0f}" if unit > 1 else time) for user, item, time in rows]
    write_dataset(tmp_path, "toy", rows)
    whole, train, valid, test = built(model, MAX_ITEM_LIST_LENGTH=20)
    for user, items in expected.items():
        number = whole.token2id("user_id", user)
        begin, end = whole.sequences.offsets[number : number + 2]
        assert whole.id2token("item_id", whole.sequences.items[begin:end]).tolist() == items

    def listed(part, row, length):
        return part.id2token("item_id", part[[row]]["item_id_list"][0, :length]).tolist()

    for row in range(len(test)):
        user = test.id2token("user_id", test.inter_feat["user_id"][row].item())
        assert test.id2token("item_id", test.inter_feat["item_id"][row].item()) == expected[user][-1]
        assert valid.id2token("item_id", valid.inter_feat["item_id"][row].item()) == expected[user][-2]
        if model == "SASRec":
            assert listed(test, row, 7) == expected[user][:7]
        if model == "HLLM":
            assert listed(train, row, 6) == expected[train.id2token("user_id", train[[row]]["user_id"].item())][:6]
    if model == "Pop":
        kept = [whole.id2token("item_id", item) for item in train.inter_feat["item_id"]]
        users = whole.id2token("user_id", train.inter_feat["user_id"])
        assert kept == [item for user in dict.fromkeys(users) for item in expected[user][:6]]


def test_recbole_itself_gets_this_order_wrong(write_dataset, toy_config, tmp_path):
    """The reason for all this: were it to pass one day, RecBole's own order would do."""
    rows, expected = times_apart(1)
    write_dataset(tmp_path, "toy", rows)
    test = SequentialDataset(toy_config(load_col={"inter": ["user_id", "item_id", "timestamp"]})).build()[2]
    users, items = (test.id2token(field, test.inter_feat[field].numpy()) for field in ("user_id", "item_id"))
    assert any(item != expected[user][-1] for user, item in zip(users, items, strict=True))


@pytest.mark.parametrize("model", ["SASRec", "HLLM", "Pop"])
def test_ties_keep_file_order(write_dataset, built, tmp_path, model):
    rows = [(f"u{number % 3}", f"i{number}", 1_600_000_000 + number // 9) for number in range(36)]
    write_dataset(tmp_path, "toy", rows)
    whole, *_ = built(model)
    for user in range(3):
        number = whole.token2id("user_id", f"u{user}")
        begin, end = whole.sequences.offsets[number : number + 2]
        items = whole.id2token("item_id", whole.sequences.items[begin:end]).tolist()
        assert items == [item for owner, item, _ in rows if owner == f"u{user}"]


@pytest.mark.parametrize("group_by", ["none", "user"])
def test_a_split_of_all_users_follows_full_precision(write_dataset, built, tmp_path, group_by):
    rows, _ = times_apart(1, users=5, per_user=10)
    write_dataset(tmp_path, "toy", [(user, item, float(time) + int(user[1]) * 0.1) for user, item, time in rows])
    split = {"RS": [0.6, 0.2, 0.2]} if group_by == "none" else {"TS": [0.6, 0.2, 0.2]}
    whole, train, valid, test = built(eval_args=eval_args(split, group_by))
    times = [whole.sequences.timestamps[part.targets] for part in (train, valid, test)]
    assert times[1].max() < times[2].min() and len(times[2]) == 9
    if group_by == "none":
        assert times[0].max() < times[1].min()


def test_building_twice_gives_the_same_parts(write_dataset, toy_config, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    whole = create_dataset(toy_config())
    first, second = whole.build(), whole.build()
    for part, other in zip(first, second, strict=True):
        assert torch.equal(part[slice(None)]["item_id_list"], other[slice(None)]["item_id_list"])


# ---- everything a user had ----


@pytest.mark.parametrize("test_length, width", [(None, 5), (8, 8)])
def test_latest_rows_hold_everything_a_user_had(
    write_dataset, built, latest_histories, tmp_path, random_rows, test_length, width
):
    rows = random_rows()
    write_dataset(tmp_path, "toy", rows, items=("item_id:token\ttitle:token_seq", []))
    whole, *_ = built("HLLM", MAX_ITEM_LIST_LENGTH_TEST=test_length)
    histories, latest = latest_histories(whole)
    assert latest["item_id_list"].shape[1] == width
    assert (latest["event_time"] == max(row[2] for row in rows)).all()
    for user in {row[0] for row in rows}:
        events = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])[-width:]
        assert histories.pop(user) == [event[1] for event in events]
        times = latest["event_time_list"][whole.token2id("user_id", user) - 1]
        assert times.tolist() == [event[2] for event in events] + [0] * (width - len(events))
    assert not histories


# ---- a part of the training data ----


@pytest.mark.parametrize("least, first", [(6, None), (None, 3), (6, 3), (2, 5)])
@pytest.mark.parametrize("model", ["HLLM", "SASRec", "Pop"])
def test_training_on_the_first_items_of_some_users(write_dataset, built, tmp_path, random_rows, least, first, model):
    """Against a slow loop over the leave-one-out split; everything else is as with all of the training data."""
    rows = random_rows()
    write_dataset(tmp_path, "toy", rows)
    everything, _, valid, test = built(model)
    whole, train, *evaluated = built(model, train_min_items=least, train_first_items=first)
    expected = []
    for user in {row[0] for row in rows}:
        items = [row[1] for row in sorted((row for row in rows if row[0] == user), key=lambda row: row[2])]
        items = items[: len(items) - min(2, max(len(items) - 2, 0))]
        if len(items) >= (least or 0):
            expected += [(user, item, place) for place, item in enumerate(items) if place < (first or np.inf)]
    positions = train.training_positions
    ids = {"user_id": whole.sequences.of(positions), "item_id": whole.sequences.items[positions]}
    trained = [whole.id2token(field, values) for field, values in ids.items()]
    assert sorted(zip(*trained, strict=True)) == sorted(row[:2] for row in expected)
    targets = [row[:2] for row in expected if row[2] > 0]
    seen = train[slice(None)]
    if model == "SASRec":
        listed = whole.id2token("user_id", seen["user_id"]), whole.id2token("item_id", seen["item_id"])
        assert sorted(zip(*listed, strict=True)) == sorted(targets)
    if model == "HLLM":  # each item but the first of a user is predicted once
        assert int((seen["item_length"] - 1).sum()) == len(targets)
    for part, other in zip(evaluated, (valid, test), strict=True):
        assert np.array_equal(part.targets, other.targets)
        assert torch.equal(part[slice(None)]["item_id"], other[slice(None)]["item_id"])
    parts = dict(zip(("valid", "test"), evaluated, strict=True))
    nothing_drawn = dict.fromkeys(parts)
    before = fingerprint(everything, {"valid": valid, "test": test}, nothing_drawn)
    assert fingerprint(whole, parts, nothing_drawn) == before, "rows of one table"
    assert np.array_equal(whole.whole_counts(), everything.whole_counts())


# ---- a share of the users ----


def test_fewer_users_train_and_all_are_evaluated(toy, settings_of):
    def parts(model, share):
        config = Config(model, config_dict={**settings_of(model), "train_user_fraction": share})
        data = create_dataset(config)
        train, valid, test = data.build()
        users = set(train.sequences.users[train.sequences.of(train.training_positions)].tolist())
        digests = fingerprint(data, {"valid": valid, "test": test}, {"valid": None, "test": None})
        return users, len(train), digests

    for model in ("HLLM", "SASRec", "Pop"):
        (all_users, all_rows, whole), (half, rows, digests) = parts(model, 1.0), parts(model, 0.5)
        assert all_users == set(range(1, 15)) and half < all_users and 0 < rows < all_rows
        assert parts(model, 0.4)[0] <= half, "more users include the fewer"
        assert half == parts("SASRec", 0.5)[0], "the same for every model"
        assert digests == whole, "rows of one table"


def test_nobody_left_to_train_on(toy, settings_of):
    config = Config("SASRec", config_dict={**settings_of("SASRec"), "train_user_fraction": 0})
    with pytest.raises(ConfigError, match="train_user_fraction: 0.* leaves nobody of 14 users"):
        create_dataset(config).build()
    keys = {**settings_of("SASRec"), "train_min_items": 8, "train_first_items": 3}  # the longest walk has 9
    with pytest.raises(ConfigError, match="^train_min_items: 8, train_first_items: 3 leaves nobody of 14 users"):
        create_dataset(Config("SASRec", config_dict=keys)).build()
