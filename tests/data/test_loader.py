"""What a batch holds: negatives of training rows only, whole histories to mask, fixed candidates."""

import numpy as np
import pytest
import torch

from recbole_hllm import create_dataset, data_preparation
from recbole_hllm.data.loader import CANDIDATES, EvalLoader
from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.data.rows.window import WindowLoader
from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.model.base.further_negatives import check_further

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def loaders(write_dataset, toy_config, tmp_path, random_rows):
    """The three loaders of a model on random data, or on given rows."""

    def make(model="SASRec", rows=None, **keys):
        rows = rows or random_rows(users=20, items=40, longest=15, seed=7)
        write_dataset(tmp_path, "toy", rows, items=("item_id:token\tclass:token_seq", [("i1", "a b"), ("i2", "c")]))
        config = toy_config(model, **keys)
        return data_preparation(config, create_dataset(config))

    return make


# ---- training ----


@pytest.mark.parametrize(("number", "expected"), [(7, [7, 7]), (None, [4 * 6, 3 * 6])])
def test_window_batches_share_their_negatives(loaders, number, expected):
    rows = [(f"u{user}", f"i{(user * 3 + n) % 9}", n) for user in range(7) for n in range(6)]
    train, *_ = loaders("HLLM", rows, num_negatives=number, train_batch_size=4)
    assert isinstance(train, WindowLoader) and len(train) == 2
    batches = list(train)
    assert [batch["neg_item_id"].shape for batch in batches] == [(1, count) for count in expected]
    assert [batch["item_id_list"].shape for batch in batches] == [(4, 6), (3, 6)]
    for batch in batches:
        assert batch["neg_item_id"].dtype == torch.int64
        assert batch["neg_item_id"].min() >= 1 and batch["neg_item_id"].max() < train._dataset.item_num
    users = torch.cat([batch["user_id"] for batch in batches])
    assert sorted(users.tolist()) == list(range(1, 8)) and users.tolist() != list(range(1, 8))  # shuffled


@pytest.mark.parametrize("model", ["SASRecNCE", "HSTU", "LLMIDRec", "HLLM"])
def test_each_position_can_have_its_own_negatives(loaders, model):
    rows = [(f"u{user}", f"i{(user * 3 + n) % 9}", n) for user in range(7) for n in range(6)]
    train, *_ = loaders(model, rows, negatives="per_position", num_negatives=30, train_batch_size=4)
    batches = list(train)
    assert [batch["neg_item_id"].shape for batch in batches] == [(4, 5, 30), (3, 5, 30)]
    drawn = batches[0]["neg_item_id"]
    assert drawn.dtype == torch.int64 and set(drawn.unique().tolist()) == set(range(1, 10))
    assert len({tuple(own) for own in drawn.view(-1, 30).tolist()}) == 20, "all different"


@pytest.mark.parametrize("model", ["SASRecNCE", "HSTU", "LLMIDRec", "HLLM"])
def test_negatives_are_shared_by_default(loaders, model):
    assert next(iter(loaders(model, num_negatives=3)[0]))["neg_item_id"].shape == (1, 3)


@pytest.mark.parametrize("model", ["SASRecNCE", "HSTU", "LLMIDRec", "HLLM"])
def test_the_whole_catalogue_is_listed_and_not_drawn(loaders, model):
    train, *_ = loaders(model, negatives="catalogue", train_batch_size=4)
    for batch in train:
        assert batch["neg_item_id"].tolist() == [list(range(1, train._dataset.item_num))]
    assert train._sampler is None and len(train) > 1


def test_the_whole_catalogue_is_drawn_from_by_nobody(loaders):
    with pytest.raises(ConfigError, match="train_neg_sample_args: SASRecNCE compares with no drawn negatives"):
        loaders("SASRecNCE", negatives="catalogue", train_neg_sample_args=POPULARITY)


@pytest.mark.parametrize("word", ["per-position", "own", None, 3, ["shared"]])
def test_another_word_for_negatives(loaders, word):
    with pytest.raises(ConfigError, match="negatives(: .* is not one of shared, per_position, c| must not be empty)"):
        loaders("SASRecNCE", negatives=word)


@pytest.mark.parametrize("rows", ["positions", "prefix", "user"])
def test_a_loss_over_the_whole_catalogue_has_no_negatives(loaders, rows):
    train, *_ = loaders("E4SRec", training_rows=rows, num_negatives=None, train_batch_size=4)
    batch = next(iter(train))
    assert train._sampler is None and "neg_item_id" not in batch
    assert batch["item_id_list"].shape == (4, 6 if rows == "positions" else 5)
    assert ("item_id" in batch) == (rows != "positions")


@pytest.mark.parametrize("rows", ["positions", "prefix", "user"])
def test_rows_are_numbered_for_who_keeps_something_for_each(loaders, rows):
    train, valid, _ = loaders("SLMRec", training_rows=rows, train_batch_size=4)
    batches = list(train)
    numbers = torch.cat([batch["row_number"] for batch in batches])
    assert sorted(numbers.tolist()) == list(range(len(train._dataset))) and numbers.tolist() != sorted(numbers.tolist())
    for batch in batches:
        same = train._dataset[batch["row_number"]]
        assert torch.equal(same["item_id_list"], batch["item_id_list"])
    assert "row_number" not in next(iter(valid))[0]
    assert "row_number" not in next(iter(loaders("E4SRec", training_rows=rows)[0]))


def test_negatives_of_positions_need_a_number(loaders):
    with pytest.raises(ConfigError, match="num_negatives: negatives: per_position needs their number"):
        loaders("SASRecNCE", negatives="per_position", num_negatives=None)


def test_a_number_of_negatives_below_none_is_refused(loaders):
    with pytest.raises(ConfigError, match="num_negatives: .* must be at least 0"):
        loaders("HLLM", num_negatives=-5)


@pytest.mark.parametrize("model", ["HLLM", "SASRecNCE"])
def test_no_negatives_are_refused_where_nothing_else_is_compared_with(toy_config, loaders, model):
    config = toy_config(model, num_negatives=0)
    with pytest.raises(ConfigError, match="num_negatives: 0 leaves nothing to compare with"):
        check_further(config.spec.model.Keys.of(config))


POPULARITY = {"distribution": "popularity", "sample_num": 1, "alpha": 1.0}


def rows_with_items_held_out():
    """Item `test` and `valid` are in no training row; `often` is in most of them, `first` opens every history."""
    rows = []
    for user in range(6):
        items = ["first", "often", "often", f"seldom{user % 2}", "valid", "test"]
        rows += [(f"u{user}", item, number) for number, item in enumerate(items)]
    return rows


@pytest.mark.parametrize(("model", "first_is_drawn"), [("HLLM", True), ("SASRec", False), ("BPR", True)])
def test_popular_negatives_come_from_training_rows_only(loaders, model, first_is_drawn):
    keys = {"loss_type": "BPR"} if model == "SASRec" else {}
    train, *_ = loaders(model, rows_with_items_held_out(), train_neg_sample_args=POPULARITY, **keys)
    drawn = train._dataset.id2token("item_id", train._sampler.sampling(20000))
    names, counts = np.unique(drawn, return_counts=True)
    shares = dict(zip(names.tolist(), counts / 20000, strict=True))
    # 24 training interactions; RecBole's prefix rows leave the first item out, which is no target.
    total = 24 if first_is_drawn else 18
    expected = {"often": 12 / total, "seldom0": 3 / total, "seldom1": 3 / total}
    expected |= {"first": 6 / total} if first_is_drawn else {}
    assert shares == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("model", "keys"), [("SASRec", {"loss_type": "BPR"}), ("GRU4Rec", {"loss_type": "BPR"}), ("BPR", {})]
)
def test_pairwise_models_get_a_negative_for_each_row(loaders, model, keys):
    train, *_ = loaders(model, **keys, train_batch_size=16)
    assert (train._sampler.own is None) == (model != "BPR")
    own = [set() for _ in range(train._dataset.user_num)]
    feat = train._dataset.inter_feat
    for user, item in zip(feat["user_id"].tolist(), feat["item_id"].tolist(), strict=True):
        own[user].add(item)
    for batch in train:
        assert batch["neg_item_id"].shape == batch["item_id"].shape
        assert (batch["neg_item_id"] != batch["item_id"]).all() and batch["neg_item_id"].min() > 0
        if model == "BPR":
            pairs = zip(batch["user_id"].tolist(), batch["neg_item_id"].tolist(), strict=True)
            assert not any(item in own[user] for user, item in pairs)


def test_cross_entropy_and_counting_models_get_no_negatives(loaders):
    for model in ("SASRec", "Pop"):
        train, *_ = loaders(model)
        assert train._sampler is None and "neg_item_id" not in next(iter(train)).interaction


def test_user_with_every_item_leaves_no_negatives(loaders):
    rows = [(f"u{user}", f"i{n}", n) for user in range(2) for n in range(6)] + [("v", f"i{n}", n) for n in (4, 5, 4, 5)]
    rows += [("u0", f"i{n}", 10 + n) for n in range(6)]
    with pytest.raises(DataError, match="data set 'toy': no negatives to draw"):
        loaders("BPR", rows)


def labelled_loader(loaders, write_dataset, tmp_path, model, rows, **keys):
    """Of data with that many training rows, at different times."""
    total = round(rows / 0.6)
    table = [(f"u{n % 5}", f"i{n % 7}", n % 2, n) for n in range(total)]
    header = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    write_dataset(tmp_path, "labelled", table, header=header)
    split = {"split": {"RS": [0.6, 0.2, 0.2]}}
    train, *_ = loaders(model, dataset="labelled", eval_args=split, history_filter="all", **keys)
    assert len(train._dataset) == rows
    return train


@pytest.mark.parametrize("model, joined", [("DIN", True), ("DCN", True), ("FM", False), ("AutoInt", False)])
@pytest.mark.parametrize("batch_size, sizes, plain", [(44, [45], [44, 1]), (22, [22, 23], [22, 22, 1]),
                                                      (2, [2] * 21 + [3], [2] * 22 + [1]), (45, [45], [45]),
                                                      (43, [43, 2], [43, 2]), (100, [45], [45])])  # fmt: skip
def test_one_row_left_over_joins_the_batch_before(
    loaders, write_dataset, tmp_path, model, joined, batch_size, sizes, plain
):
    """Where a model normalises over the rows of a batch; each row is there once in each epoch."""
    train = labelled_loader(loaders, write_dataset, tmp_path, model, 45, train_batch_size=batch_size)
    for _ in range(2):
        batches = list(train)
        assert [len(batch) for batch in batches] == (sizes if joined else plain) and len(train) == len(batches)
        seen = torch.cat([batch["timestamp"] for batch in batches])
        assert len(seen.unique()) == 45
        assert seen.tolist() != sorted(seen.tolist())  # shuffled


def test_one_row_cannot_be_normalised(loaders, write_dataset, tmp_path):
    with pytest.raises(ConfigError, match="train_batch_size: 1: DIN normalises over the rows of a batch, which needs"):
        loaders("DIN", train_batch_size=1)
    assert loaders("SASRec", train_batch_size=1)[0].step == 1


def test_masked_training_rows_of_bert4rec(loaders):
    train, valid, _ = loaders("BERT4Rec", mask_ratio=0.5)
    batch = next(iter(train))
    n_items, masked = train._dataset.item_num, batch["Mask_item_id_list"]
    hidden = masked == n_items
    assert hidden.any() and (batch["item_id_list"][hidden] > 0).all()
    assert torch.equal(masked[~hidden], batch["item_id_list"][~hidden])
    for row in range(len(masked)):
        kept = [item for item in batch["Pos_item_id"][row].tolist() if item]
        assert kept == batch["item_id_list"][row][hidden[row]].tolist()[-len(kept) :] if kept else True
    assert "item_id_list" in next(iter(valid))[0].interaction


RATED = [
    (f"u{user}", f"i{(user * 3 + n) % 9}", user + 10 * (n // 2), 1 + n * user % 5)
    for user in range(7)
    for n in range(12)
]


@pytest.fixture
def rated(write_dataset, toy_config, tmp_path):
    """The training loader of a model on rows of which two and two have one time, so one history."""

    def make(model="HLLMRanker", **keys):
        header = "user_id:token\titem_id:token\ttimestamp:float\trating:float"
        write_dataset(tmp_path, "toy", RATED, header=header)
        config = toy_config(model, history_filter="all", train_batch_size=10, **keys)
        return data_preparation(config, create_dataset(config))[0]

    return make


def order_of(loader):
    """(user, item, history) of every row of one epoch."""
    return [
        (int(user), int(item), tuple(history.tolist()))
        for rows in loader
        for user, item, history in zip(rows["user_id"], rows["item_id"], rows["item_id_list"], strict=True)
    ]


def test_rows_of_one_history_follow_each_other(rated):
    loader = rated()
    epochs = [order_of(loader), order_of(loader)]
    rows = loader._dataset[:]
    in_order = list(zip(rows["user_id"].tolist(), rows["item_id"].tolist(), strict=True))
    assert order_of(rated()) == epochs[0] != epochs[1], "shuffled anew in each epoch, equal for the same seed"
    for rows in epochs:
        assert sorted(row[:2] for row in rows) == sorted(in_order) and [row[:2] for row in rows] != in_order
        histories = [(user, history) for user, _, history in rows]
        changes = sum(one != other for one, other in zip(histories, histories[1:], strict=False))
        assert changes == len(set(histories)) - 1 < len(rows) * 0.7


@pytest.mark.parametrize("model, keys", [("HLLMRanker", {"histories_together": False}), ("DIN", {})])
def test_rows_are_shuffled_one_by_one_otherwise(rated, model, keys):
    rows = order_of(rated(model, **keys))
    histories = [(user, history) for user, _, history in rows]
    changes = sum(one != other for one, other in zip(histories, histories[1:], strict=False))
    assert changes > len(rows) * 0.9


def test_rows_stay_in_order_where_nothing_is_shuffled(rated):
    loader = rated(shuffle=False)
    assert [row[1] for row in order_of(loader)] == [int(item) for item in loader._dataset[:]["item_id"]]


# ---- evaluation ----


@pytest.mark.parametrize("model", ["SASRec", "Pop", "BPR", "HLLM", "FDSA"])
@pytest.mark.parametrize("phase", [1, 2])
def test_every_model_is_evaluated_on_the_same_rows(loaders, model, phase):
    loader, reference = loaders(model, eval_batch_size=7)[phase], loaders("SASRec", eval_batch_size=7)[phase]
    assert len(loader) == len(reference) > 1
    for batch, other in zip(loader, reference, strict=True):
        assert torch.equal(batch[0]["user_id"], other[0]["user_id"])
        assert torch.equal(batch[0]["item_id"], other[0]["item_id"])
        assert batch[1] is None
        assert batch[2].tolist() == list(range(len(batch[0]))) and torch.equal(batch[3], batch[0]["item_id"])


def histories_of(loader):
    sequences = loader._dataset.sequences
    for target in loader._dataset.targets:
        begin = sequences.offsets[sequences.of(np.array([target]))[0]]
        yield sequences.items[begin:target].tolist(), int(sequences.items[target])


@pytest.mark.parametrize("model", ["SASRec", "Pop", "HLLM"])
@pytest.mark.parametrize("reference", [False, ["mask_target"]])
def test_the_whole_history_is_masked_but_never_the_target(loaders, random_rows, model, reference):
    rows = random_rows(users=20, items=9, longest=18, seed=7)
    loader = loaders(model, rows, mask_history=True, MAX_ITEM_LIST_LENGTH=3, eval_batch_size=6, reference=reference)[2]
    expected, longest, repeated = list(histories_of(loader)), 0, 0
    row = 0
    for batch in loader:
        numbers, items = batch[1]
        for number in range(len(batch[0])):
            history, target = expected[row]
            longest, repeated, row = max(longest, len(history)), repeated + (target in history), row + 1
            kept = history if reference else [item for item in history if item != target]
            assert sorted(items[numbers == number].tolist()) == sorted(kept)
    assert row == len(expected) and longest > 10 and repeated > 0


def test_histories_are_not_masked_by_default(loaders):
    assert all(batch[1] is None for loader in loaders()[1:] for batch in loader)


@pytest.mark.parametrize("mode", ["uni6", "pop6"])
def test_candidates_are_the_same_in_every_pass_and_for_every_model(loaders, mode):
    args = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": mode}
    seen = []
    for model in ("SASRec", "Pop", "HLLM"):
        *_, loader = loaders(model, eval_args=args, eval_batch_size=5)
        for _ in range(2):
            torch.manual_seed(len(seen))
            np.random.seed(len(seen))
            batches = [batch[0] for batch in loader]
            seen.append(torch.cat([batch[CANDIDATES] for batch in batches]))
            assert torch.equal(seen[-1][:, 0], torch.cat([batch["item_id"] for batch in batches]))
    assert all(torch.equal(other, seen[0]) for other in seen[1:])
    counts = loader._dataset.training_counts()
    sequences = loader._dataset.sequences
    for row, target in zip(seen[0], loader._dataset.targets, strict=True):
        user = sequences.of(np.array([target]))[0]
        own = set(sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist())
        drawn = row[1:].tolist()
        assert len(set(drawn)) == 6 and not own & set(drawn) and 0 not in drawn
        assert mode == "uni6" or (counts[drawn] > 0).all()


def test_candidates_depend_on_the_seed(loaders):
    args = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni6"}
    first, second = (loaders(eval_args=args, seed=seed)[2].candidates for seed in (1, 2))
    assert first.shape == second.shape and (first != second).any()


def test_modes_for_each_phase(loaders):
    args = {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": {"valid": "uni5", "test": "full"},
    }
    _, valid, test = loaders(eval_args=args)
    assert valid.candidates.shape == (len(valid._dataset), 5) and test.candidates is None


@pytest.mark.parametrize("mode", ["labeled", "uni", "some", "unione"])
def test_unknown_modes_are_refused(loaders, mode):
    with pytest.raises(ConfigError, match="mode|invalid literal"):
        loaders(eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": mode})


def test_more_candidates_than_items(loaders):
    with pytest.raises(DataError, match="uni"):
        loaders(eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni100"})


def test_parts_without_rows_have_no_loader(loaders):
    args = {"order": "TO", "group_by": "user", "mode": "full"}
    assert loaders(eval_args={**args, "split": {"LS": "test_only"}})[1] is None
    assert loaders(eval_args={**args, "split": {"LS": "valid_only"}})[2] is None


def test_evaluation_batches_stay_small_on_large_catalogues(loaders, monkeypatch):
    loader = loaders(eval_batch_size=1000)[2]
    assert isinstance(loader, EvalLoader) and loader.step == 1000
    monkeypatch.setattr("recbole_hllm.data.loader._SCORES_PER_BATCH", 3 * loader._dataset.item_num + 1)
    assert loaders(eval_batch_size=1000)[2].step == 3


def test_fingerprints_are_equal_for_rows_of_one_table_and_no_others(loaders):
    args = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni5"}

    def of(model, rows=None, **keys):
        train, valid, test = loaders(model, rows, **{"eval_args": args, **keys})
        parts = {"valid": valid._dataset, "test": test._dataset}
        return fingerprint(train._dataset, parts, {"valid": valid.candidates, "test": test.candidates})

    reference = of("SASRec")
    shared = {"metrics": ["Recall", "NDCG"], "topk": [10], "valid_metric": "NDCG@10"}
    first = of("SASRec", **shared)
    for model in ("FDSA", "Pop", "BPR", "HLLM"):
        assert of(model, **shared) == first
    changes = [
        {"mask_history": True}, {"seed": 5}, {"item_inter_num_interval": "[2,inf)"},
        {"topk": [3], "valid_metric": "MRR@3"},
        {"eval_args": {**args, "mode": "full"}}, {"eval_args": {**args, "split": {"RS": [8, 1, 1]}}},
    ]  # fmt: skip
    for change in changes:
        assert of("SASRec", **change) != reference, change
