"""Data that is given as three files: ready-made histories, or interactions."""

import random

import numpy as np
import pytest

from recbole_hllm.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

NAMES = ["part1", "part2", "part3"]


@pytest.fixture
def ready_made(write_dataset, tmp_path, random_rows):
    """The rows of a leave-one-out split, written as RecBole's sequential benchmark files."""

    def write(times=True, longest=12):
        rng = random.Random(0)
        parts = [[], [], []]
        for user in range(8):
            items = [f"i{rng.randint(1, 20)}" for _ in range(rng.randint(4, longest))]
            for end in range(1, len(items)):
                part = {len(items) - 1: 2, len(items) - 2: 1}.get(end, 0)
                row = (f"u{user}", " ".join(items[:end]), items[end], 100 * user + end)
                parts[part].append(row if times else row[:3])
        header = "user_id:token\titem_id_list:token_seq\titem_id:token" + ("\ttimestamp:float" if times else "")
        for name, rows in zip(NAMES, parts, strict=True):
            write_dataset(tmp_path, "toy", rows, header=header, suffix=f"{name}.inter")
        return parts

    return write


GIVEN = {"benchmark_filename": NAMES, "alias_of_item_id": ["item_id_list"]}
GIVEN_COLUMNS = {"inter": ["user_id", "item_id_list", "item_id", "timestamp"]}


def test_ready_made_histories_equal_recboles(ready_made, toy_config, same_parts):
    ready_made()
    config = toy_config(**GIVEN, load_col=GIVEN_COLUMNS, MAX_ITEM_LIST_LENGTH=12)
    parts, stock_parts = same_parts(config)
    assert [len(part) for part in parts] == [len(part) for part in stock_parts]


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("model", ["SASRec", "Pop", "HLLM"])
def test_ready_made_histories_for_every_model(ready_made, built, times, model):
    written = ready_made(times)
    whole, train, *evaluated = built(model, **GIVEN, MAX_ITEM_LIST_LENGTH=4)
    for part, rows in zip(evaluated, written[1:], strict=True):
        assert part.id2token("item_id", part.inter_feat["item_id"]).tolist() == [row[2] for row in rows]
        number, items = part.histories(np.arange(len(rows)))
        for row, (_, history, *_) in enumerate(rows):
            assert " ".join(part.id2token("item_id", items[number == row].numpy())) == history
    if model == "SASRec":
        for row, (_, history, *_) in enumerate(written[0]):
            length = train[[row]]["item_length"].item()
            listed = train[[row]]["item_id_list"][0]
            assert train.id2token("item_id", listed[:length].numpy()).tolist() == history.split()[-4:]
            assert listed.shape == (4,) and (listed[length:] == 0).all()
    if model == "Pop":
        assert train.id2token("item_id", train.inter_feat["item_id"]).tolist() == [row[2] for row in written[0]]
    if model == "HLLM":
        rows = train[slice(None)]
        targets = sum(int(length) - 1 for length in rows["item_length"])
        assert targets == len(written[0]) and rows["item_id_list"].shape[1] == 5
    expected = np.bincount(whole.token2id("item_id", [row[2] for row in written[0]]), minlength=whole.item_num)
    assert whole.training_counts().tolist() == expected.tolist()
    assert whole.statistics()["users"] == 8


def test_ready_made_histories_keep_one_id_space(ready_made, write_dataset, built, tmp_path):
    ready_made()
    items = [(f"i{n}", "c") for n in range(30, 0, -1)]
    (tmp_path / "toy" / "toy.item").write_text(
        "item_id:token\tclass:token_seq\n" + "".join(f"{item}\t{kind}\n" for item, kind in items)
    )
    reference, *_ = built("SASRec", **GIVEN)
    for model, keys in (("FDSA", {}), ("Pop", {}), ("HLLM", {}), ("SASRec", {"load_col": None})):
        whole, *_ = built(model, **GIVEN, **keys)
        assert whole.field2id_token["item_id"].tolist() == reference.field2id_token["item_id"].tolist()


@pytest.mark.parametrize("model", ["SASRec", "Pop", "HLLM"])
def test_plain_benchmark_files(write_dataset, built, tmp_path, random_rows, pairs, model):
    """The same interactions in three files, in any order inside, are split as leave-one-out splits them."""
    rows = sorted(random_rows(seed=6), key=lambda row: (row[0], row[2]))
    parts = [[], [], []]
    for user in {row[0] for row in rows}:
        own = [row for row in rows if row[0] == user]
        held_out = min(2, max(len(own) - 2, 0))
        for number, row in enumerate(own):
            parts[max(number - len(own) + held_out + 1, 0) + (held_out == 1 and number == len(own) - 1)].append(row)
    for name, part in zip(NAMES, parts, strict=True):
        random.Random(0).shuffle(part)
        write_dataset(tmp_path, "toy", part, suffix=f"{name}.inter")
    write_dataset(tmp_path, "toy", rows)
    _, train, *given = built(model, benchmark_filename=NAMES)
    _, other, *expected = built(model)
    for part, wanted in zip(given, expected, strict=True):
        assert sorted(pairs(part)) == sorted(pairs(wanted))
    assert len(train) == len(other)
    if model == "SASRec":
        lists = [
            sorted(tuple(part.id2token("item_id", items.numpy())) for items in part[slice(None)]["item_id_list"])
            for part in (train, other)
        ]
        assert lists[0] == lists[1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"benchmark_filename": ["train", "test"]}, r"must be three names, such as \['train', 'valid', 'test'\]"),
        ({"benchmark_filename": NAMES, "rm_dup_inter": "first"}, "rm_dup_inter and benchmark_filename"),
        ({"benchmark_filename": NAMES, "user_inter_num_interval": "[5,inf)"}, "user_inter_num_interval and benchmark"),
        ({"benchmark_filename": NAMES}, "alias_of_item_id: must name 'item_id_list'"),
    ],
)
def test_benchmark_keys_that_do_not_fit(ready_made, built, keys, message):
    ready_made()
    with pytest.raises(ConfigError, match=message):
        built(**keys)


def test_benchmark_rows_without_a_user_are_refused(ready_made, built, tmp_path):
    ready_made()
    file = tmp_path / "toy" / "toy.part2.inter"
    file.write_text(file.read_text() + "\ti1\ti2\t5\n")
    with pytest.raises(DataError, match="toy.part2.inter, line 10, column user_id: missing"):
        built(**GIVEN)


def test_a_missing_benchmark_file_is_named(ready_made, built, tmp_path):
    ready_made()
    with pytest.raises(DataError, match="there is no .*toy.gone.inter"):
        built(benchmark_filename=["part1", "gone", "part3"])


@pytest.mark.parametrize("times", [True, False])
def test_the_latest_of_ready_made_histories(ready_made, built, latest_histories, times):
    tested = ready_made(times)[2]
    whole, *_ = built("HLLM", **GIVEN, MAX_ITEM_LIST_LENGTH=30)
    histories, _ = latest_histories(whole)
    assert histories == {row[0]: [*row[1].split(), row[2]] for row in tested}


@pytest.mark.parametrize("key", ["train_min_items", "train_first_items"])
def test_ready_made_histories_do_not_say_where_users_begin(ready_made, built, key):
    ready_made()
    with pytest.raises(ConfigError, match=f"^{key}: ready-made histories do not say where"):
        built("SASRec", **GIVEN, **{key: 3})
