"""The same interactions and ids for every model; filters as RecBole's; wrong files and keys are named."""

import pickle
import random

import numpy as np
import pytest
import torch

from recbole_hllm import create_dataset, data_preparation
from recbole_hllm.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

LOAD = {"inter": ["user_id", "item_id", "rating", "timestamp"]}
HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"


# ---- one id space, whatever a model loads ----


def with_items(write_dataset, tmp_path, random_rows):
    rows = random_rows(users=20, items=25, seed=2)
    items = [(f"i{number}", f"word{number} more", f"c{number % 3}") for number in range(30, 2, -1)]
    write_dataset(tmp_path, "toy", rows, items=("item_id:token\ttitle:token_seq\tclass:token_seq", items))
    return rows


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("SASRec", {}),
        ("SASRec", {"load_col": None}),
        ("FDSA", {}),
        ("FDSA", {"selected_features": ["title"], "load_col": None}),
        ("SASRecF", {}),
        ("GRU4Rec", {}),
        ("BERT4Rec", {}),
        ("Pop", {}),
        ("BPR", {"load_col": None}),
        ("HLLM", {}),
        ("HLLM", {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "title"]}}),
    ],
)
def test_ids_and_targets_do_not_depend_on_the_model(write_dataset, built, tmp_path, random_rows, pairs, model, keys):
    rows = with_items(write_dataset, tmp_path, random_rows)
    whole, *parts = built(model, **keys)
    reference, *expected = built("SASRec")
    assert whole.field2id_token["item_id"].tolist() == reference.field2id_token["item_id"].tolist()
    assert whole.field2id_token["user_id"].tolist() == reference.field2id_token["user_id"].tolist()
    assert set(whole.field2id_token["item_id"][1:]) == {item for _, item, _ in rows}
    assert whole.statistics() == reference.statistics()
    for part, other in zip(parts[1:], expected[1:], strict=True):
        assert pairs(part) == pairs(other) and len(part) > 5
    assert whole.training_counts().tolist() == reference.training_counts().tolist()


def test_items_without_a_row_stay_and_have_empty_features(write_dataset, built, tmp_path, random_rows, caplog):
    with_items(write_dataset, tmp_path, random_rows)
    whole, train, *_ = built("FDSA")
    features = whole.get_item_feature()
    assert len(features) == whole.item_num
    for token, kinds in (("i1", 0), ("i2", 0), ("i3", 1)):
        row = features[whole.token2id("item_id", token)]
        assert (row["class"] > 0).sum() == kinds
    assert features["class"][0].sum() == 0
    assert "2 of" in caplog.text and "items have no row" in caplog.text
    joined = train[list(range(len(train)))]
    assert torch.equal(joined["class"], features["class"][joined["item_id"]])


@pytest.mark.parametrize("model", ["SASRec", "FDSA", "Pop"])
def test_strict_data_refuses_items_without_a_row_for_every_model(write_dataset, built, tmp_path, random_rows, model):
    rows = [row for row in random_rows() if row[1] != "i1"]
    items = [(f"i{number}", "c") for number in range(3, 16)]
    write_dataset(tmp_path, "toy", rows, items=("item_id:token\tclass:token_seq", items))
    with pytest.raises(DataError, match=r"toy.item: 1 of \d+ items have no row, such as i2"):
        built(model, strict_data=True)


def test_item_texts_with_quotes_are_words_like_others(write_dataset, built, tmp_path, random_rows):
    titles = ['"Heroes" and villains', '"', 'a "b', "", 'end"', "'tis", "NA", "don't \\n"]
    items = [(f"i{number + 1}", titles[number % len(titles)]) for number in range(15)]
    write_dataset(tmp_path, "toy", random_rows(), items=("item_id:token\ttitle:token_seq", items))
    whole, *_ = built("FDSA", selected_features=["title"])
    for item, title in items:
        if item in whole.field2token_id["item_id"]:
            words = whole.get_item_feature()["title"][whole.token2id("item_id", item)]
            assert [whole.field2id_token["title"][word] for word in words if word] == title.split()


def test_another_name_of_the_item_column(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows(), header="who:token\tasin:token\twhen:float")
    keys = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "asin", "TIME_FIELD": "when", "load_col": None}
    _, train, *_ = built("HLLM", **keys)
    assert train[[0]]["asin_list"].shape == (1, 6)
    _, train, *_ = built("SASRec", **keys)
    assert train[[0]]["asin_list"].shape == (1, 5)


# ---- filters ----


def filtered(write_dataset, tmp_path, random_rows, **files):
    rng = random.Random(1)
    rows = random_rows(users=25, items=12, longest=14, seed=9, rated=True)
    items = [(f"i{n}", rng.choice(["red", "blue", "green"]), n) for n in range(1, 13)]
    users = [(f"u{n}", rng.choice(["f", "m"])) for n in range(25)]
    write_dataset(
        tmp_path, "toy", rows, header=HEADER,
        items=("item_id:token\tclass:token\tprice:float", items), users=("user_id:token\tsex:token", users),
    )  # fmt: skip
    return rows, dict((i, (c, p)) for i, c, p in items), dict(users)


FILTERS = [
    {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[8,inf)"},
    {"user_inter_num_interval": "(3,10]"},
    {"item_inter_num_interval": "[2,9);(11,40]"},
    {"val_interval": {"rating": "[3,inf)"}},
    {"val_interval": {"rating": "[1,2];(4,5]", "timestamp": "[200,900]"}},
    {"val_interval": {"item_id": ["i1", "i2", "i3", "i7"]}},
    {"rm_dup_inter": "first"},
    {"rm_dup_inter": "last"},
    {"rm_dup_inter": "last", "user_inter_num_interval": "[4,inf)", "val_interval": {"rating": "[2,5]"}},
]


@pytest.mark.parametrize("keys", FILTERS, ids=str)
def test_filters_equal_recboles(write_dataset, toy_config, tmp_path, random_rows, same_parts, keys):
    filtered(write_dataset, tmp_path, random_rows)
    parts, _ = same_parts(toy_config(load_col=LOAD, **keys))
    assert len(parts[2])


@pytest.mark.parametrize(
    "interval", [{"class": ["red", "green"]}, {"price": "[3,9]"}, {"sex": ["f"]}, {"price": "(2,8)", "sex": ["m"]}]
)
def test_filters_on_features_hold_for_models_that_do_not_load_them(
    write_dataset, built, toy_config, tmp_path, random_rows, same_parts, pairs, interval
):
    rows, items, users = filtered(write_dataset, tmp_path, random_rows)
    low, high = {"[3,9]": (3, 9), "(2,8)": (2.5, 7.5)}.get(interval.get("price"), (0, 99))

    def kept(user, item):
        colour, price = items[item]
        wanted = colour in interval.get("class", [colour]) and low <= price <= high
        return wanted and users[user] in interval.get("sex", [users[user]])

    expected = sorted((user, item) for user, item, *_ in rows if kept(user, item))
    fewer = []
    for model, keys in (("SASRec", {}), ("Pop", {}), ("FDSA", {}), ("HLLM", {}), ("SASRec", {"load_col": None})):
        whole, *parts = built(model, val_interval=interval, **keys)
        everything = whole.sequences
        owners = whole.id2token("user_id", everything.of(np.arange(len(everything.items))))
        read = zip(owners, whole.id2token("item_id", everything.items), strict=True)
        assert sorted((str(user), str(item)) for user, item in read) == expected
        fewer.append((whole.field2id_token["item_id"].tolist(), pairs(parts[2])))
    assert all(other == fewer[0] for other in fewer)
    # RecBole filters alike once it is told to load the columns, and to drop interactions with what is gone and what
    # has no interactions.
    config = toy_config(
        val_interval=interval, load_col=None, filter_inter_by_user_or_item=True,
        user_inter_num_interval="[1,inf)", item_inter_num_interval="[1,inf)",
    )  # fmt: skip
    same_parts(config)


@pytest.mark.parametrize("model", ["SASRec", "FDSA", "Pop"])
def test_filters_on_features_drop_items_without_a_row(write_dataset, built, tmp_path, random_rows, model):
    rows = random_rows(users=20, items=10, seed=2)
    items = [(f"i{n}", "a" if n % 2 else "b", "c") for n in range(3, 11)]
    write_dataset(tmp_path, "toy", rows, items=("item_id:token\tkind:token\tclass:token", items))
    whole, *_ = built(model, val_interval={"kind": ["a"]})
    assert set(whole.field2id_token["item_id"][1:]) == {"i3", "i5", "i7", "i9"}


@pytest.mark.parametrize("model", ["SASRec", "FDSA", "Pop"])
def test_interactions_without_a_row_go_when_asked_for(write_dataset, built, tmp_path, random_rows, model):
    rows = with_items(write_dataset, tmp_path, random_rows)
    whole, *_ = built(model, filter_inter_by_user_or_item=True)
    assert set(whole.field2id_token["item_id"][1:]) == {item for _, item, _ in rows} - {"i1", "i2"}


def test_saved_settings_give_the_same_data(write_dataset, toy_config, tmp_path, random_rows):
    with_items(write_dataset, tmp_path, random_rows)
    config = toy_config("FDSA")
    again = toy_config(**config.settings)
    first, second = create_dataset(config), create_dataset(again)
    assert first.field2id_token["item_id"].tolist() == second.field2id_token["item_id"].tolist()
    assert len(first.timestamps) == len(second.timestamps)


@pytest.mark.parametrize("tie", ["first", "last"])
def test_repeated_interactions_are_told_apart_at_full_precision(write_dataset, built, tmp_path, tie):
    base = 1_600_000_000
    rows = [("u", "a", base + 3), ("u", "b", base + 1), ("u", "a", base), ("u", "c", base + 2), ("u", "d", base + 4)]
    write_dataset(tmp_path, "toy", rows)
    whole, *_ = built(rm_dup_inter=tie)
    order = whole.id2token("item_id", whole.sequences.items).tolist()
    assert order == (["a", "b", "c", "d"] if tie == "first" else ["b", "c", "a", "d"])


@pytest.mark.parametrize(("keep", "rating"), [("first", 1.0), ("last", 40.0)])
def test_repeated_interactions_at_one_time_are_told_apart_by_file_order(write_dataset, built, tmp_path, keep, rating):
    rows = [("u", "a", number, 5) for number in range(1, 41)] + [("u", f"i{number}", 0, number) for number in range(9)]
    write_dataset(tmp_path, "toy", rows, header=HEADER)
    whole, *_ = built(load_col=LOAD, rm_dup_inter=keep)
    assert whole.inter_feat["rating"][whole.inter_feat["item_id"] == whole.token2id("item_id", "a")].tolist() == [
        rating
    ]


def test_rows_without_user_or_item_are_left_out_with_a_warning(write_dataset, built, tmp_path, caplog):
    rows = [("u", f"i{n}", n) for n in range(6)]
    rows[0] = ("", "i0", 0)
    rows[3] = ("u", "", 3)
    write_dataset(tmp_path, "toy", rows)
    whole, *_ = built()
    assert whole.id2token("item_id", whole.sequences.items).tolist() == ["i1", "i2", "i4", "i5"]
    assert "1 rows without user_id are left out, the first in line 2" in caplog.text
    assert "1 rows without item_id are left out, the first in line 5" in caplog.text


def test_chosen_columns(write_dataset, built, tmp_path, random_rows):
    filtered(write_dataset, tmp_path, random_rows)
    whole, train, *_ = built()
    assert set(train[[0]].interaction) >= {"user_id", "item_id", "timestamp", "item_length", "item_id_list"}
    assert "rating" not in whole.field2type and whole.item_feat is None
    whole, *_ = built(load_col=None, unload_col={"inter": ["rating"], "item": ["price"]})
    assert "rating" not in whole.field2type and list(whole.item_feat.interaction) == ["item_id", "class"]
    whole, *_ = built(load_col=None, unload_col={"inter": ["rating"]}, val_interval={"rating": "[3,5]"})
    assert whole.inter_feat["rating"].min() >= 3  # what filters is read


# ---- wrong files and keys ----


def lines(*rows):
    return "\n".join(rows) + "\n"


GOOD = ["user_id:token\titem_id:token\ttimestamp:float", *(f"u\ti{n}\t{n}" for n in range(6))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"toy.inter is empty"),
        (GOOD[0] + "\n", r"toy.inter has a header but no rows"),
        (lines("user_id\titem_id\ttimestamp", *GOOD[1:]), r"toy.inter, line 1: column 'user_id' must be name:type"),
        (lines(GOOD[0].replace("timestamp:float", "timestamp:token"), *GOOD[1:]), "line 1: .*must be timestamp:float"),
        (lines(GOOD[0].replace("user_id:token", "user_id:float"), *GOOD[1:]), "line 1: .*must be user_id:token"),
        (lines(GOOD[0].replace("timestamp", "time"), *GOOD[1:]), "line 1: no column 'timestamp' .*item_id, time"),
        (lines(GOOD[0], "u\ti1\tnoon", *GOOD[1:]), "toy.inter, line 2, column timestamp: 'noon' is not a number"),
        (lines(*GOOD, "u\ti9\t"), "toy.inter, line 8, column timestamp: missing"),
        (lines(*GOOD[:3], "u\ti9\tnan", *GOOD[3:]), "toy.inter, line 4, column timestamp: missing"),
        (lines(*GOOD, "u\ti9\tinf"), "toy.inter, line 8, column timestamp: .*not finite"),
        (lines(*GOOD, "u\ti9"), "toy.inter, line 8: 2 columns, but the header has 3"),
        (lines(*GOOD, "u\ti9\t9\t9"), "toy.inter, line 8: 4 columns, but the header has 3"),
        (lines(*GOOD).encode() + b"u\ti\xff\t9\n", "toy.inter, line 8: not valid utf-8"),
        (lines(GOOD[0], "u\ti1\t1", "u\ti2\t2"), "no user is left to test.*longest: 2 items"),
    ],
)
@pytest.mark.parametrize("model", ["SASRec", "Pop"])
def test_wrong_interaction_files(built, tmp_path, model, content, message):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        built(model)


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n"), str.rstrip])
def test_byte_order_mark_and_line_ends_do_not_matter(built, tmp_path, change):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_bytes(change(lines(*GOOD)).encode())
    for keys in ({}, {"encoding": "utf-8"}):
        whole, *_ = built(**keys)
        assert whole.id2token("item_id", whole.sequences.items).tolist() == [f"i{n}" for n in range(6)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"toy.item is empty"),
        ("item_id:token\tclass:token\n", r"toy.item has a header but no rows"),
        ("id:token\tclass:token\ni1\ta\n", r"toy.item, line 1: no column 'item_id'"),
        ("item_id:float\tclass:token\n1\ta\n", r"toy.item, line 1: column 'item_id' must be item_id:token"),
        ("item_id:token\tclass:token\ni1\ta\ni2\tb\n\ni1\tc\n", r"toy.item, line 5: item_id 'i1' is already in line 2"),
        ("item_id:token\tclass:token\ni1\ta\tb\n", r"toy.item, line 2: 3 columns"),
        ("item_id:token\tclass:token\ni1\n", r"toy.item, line 2: 1 columns"),
        ("item_id:token\tclass:token\tp:float_seq\ni1\tc\t1 x\n", r"toy.item, line 2, column p: '1 x' is not a list"),
    ],
)
def test_wrong_item_files(built, write_dataset, tmp_path, random_rows, content, message):
    write_dataset(tmp_path, "toy", random_rows())
    (tmp_path / "toy" / "toy.item").write_text(content)
    with pytest.raises(DataError, match=message):
        built(load_col=None)


def test_missing_data_set_says_where_to_look(toy_config, tmp_path):
    with pytest.raises(DataError, match="data set 'toy': there is no .*toy.inter; see data_path"):
        create_dataset(toy_config())
    with pytest.raises(DataError, match="Pixel200K .* download"):
        create_dataset(toy_config(dataset="pixel200k"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"user_inter_num_interval": "[100,inf)"}, "no interaction is left after filtering"),
        ({"val_interval": {"timestamp": "[-2,-1]"}}, "no interaction is left after filtering"),
        ({"val_interval": {"rating": "[1,2]"}}, "val_interval: there is no column 'rating'"),
        ({"val_interval": {"timestamp": "5"}}, "'5' is not an interval"),
        ({"val_interval": {"timestamp": "[5,1]"}}, r"'\[5,1\]' is not an interval"),
        ({"user_inter_num_interval": "5"}, "'5' is not an interval"),
        ({"item_inter_num_interval": "[five,inf)"}, "is not an interval"),
        ({"val_interval": {"item_id": "i1"}}, "val_interval: 'item_id' is a token column and needs a list"),
        ({"val_interval": {"item_id": [1, 2]}}, "val_interval: 'item_id' is a token column and needs a list"),
        ({"val_interval": {"class": ["a"]}, "load_col": None}, "val_interval: 'class' is a token_seq column"),
        ({"TIME_FIELD": None}, "TIME_FIELD must name a column"),
        ({"additional_feat_suffix": ["net"]}, "data set 'toy': Additional feature file"),
        ({"MAX_ITEM_LIST_LENGTH": 0}, "MAX_ITEM_LIST_LENGTH: 0 must be at least 1"),
        ({"rm_dup_inter": "newest"}, "rm_dup_inter: 'newest'"),
        ({"unload_col": {"inter": ["user_id"]}, "load_col": None}, "unload_col: column 'user_id'"),
        ({"unload_col": {"inter": ["rating"]}}, "load_col and unload_col cannot be set together"),
    ],
)
def test_filters_and_columns_that_cannot_be(built, write_dataset, tmp_path, random_rows, keys, message):
    items = ("item_id:token\tclass:token_seq", [("i1", "a b")])
    write_dataset(tmp_path, "toy", random_rows(), items=items)
    with pytest.raises((DataError, ConfigError), match=message):
        built(**keys)


# ---- nothing is unpickled, nothing is written ----


class Planted:
    """Its pickle creates a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_planted_pickles_stay_closed_and_nothing_is_written(
    write_dataset, toy_config, tmp_path, random_rows, monkeypatch
):
    write_dataset(tmp_path / "data", "toy", random_rows(), items=("item_id:token\tclass:token", [("i1", "a")]))
    saved, here = tmp_path / "saved", tmp_path / "here"
    saved.mkdir()
    here.mkdir()
    names = ["toy-SequentialDataset.pth", "toy-SequenceDataset.pth", "toy-Dataset.pth"]
    names += [f"toy-for-{model}-dataloader.pth" for model in ("SASRec", "Pop", "HLLM", "FDSA")]
    for name in names:
        (saved / name).write_bytes(pickle.dumps(Planted(tmp_path / "opened")))
    monkeypatch.chdir(here)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name not in ("toy", "data")}
    for model in ("SASRec", "Pop", "HLLM", "FDSA"):
        config = toy_config(model, data_path=tmp_path / "data", checkpoint_dir=str(saved), save_dataset=True)
        for loader in data_preparation(config, create_dataset(config)):
            next(iter(loader))
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name not in ("toy", "data")}
    assert after == before and not (tmp_path / "opened").exists()
    pickle.loads((saved / names[0]).read_bytes()).close()
    assert (tmp_path / "opened").exists()  # the trap works
