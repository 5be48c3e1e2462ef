"""Splits that are asked for by name: the right one, or an error that says what there is."""

import pytest

from recbole_hllm.data.protocol import REFERENCE, fingerprint, referenced
from recbole_hllm.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def args(**changes):
    return {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full", **changes}


def histories(*lengths):
    return [(f"u{user}", f"i{n}", n) for user, length in enumerate(lengths) for n in range(length)]


# ---- reference ----


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (False, set()),
        (None, set()),
        ([], set()),
        (True, set(REFERENCE)),
        ("chunks", {"chunks"}),
        (["warmup", "chunks"], {"warmup", "chunks"}),
    ],
)
def test_behaviours_of_the_official_code(value, expected):
    assert referenced(value) == expected


@pytest.mark.parametrize("value", [0, 1, 2.5, {"chunks": True}])
def test_reference_is_a_switch_or_names(value):
    with pytest.raises(ConfigError, match=r"reference: .* is neither True, False nor a list of \['chunks'"):
        referenced(value)


def test_unknown_behaviour():
    with pytest.raises(ConfigError, match=r"reference: \['chunk'\] unknown; there are \['chunks'"):
        referenced(["chunk"])
    with pytest.raises(ConfigError, match=r"reference: \[1, \['chunks'\]\] unknown"):
        referenced(["chunks", 1, ["chunks"]])


# ---- fingerprint ----


def training_of(built, model, **keys):
    whole, *_ = built(model, **keys)
    return fingerprint(whole, {}, {})["training"]


@pytest.mark.parametrize(
    "changed",
    [
        ("u0", "i1", 1_600_000_001.25),  # another time, the order kept
        ("u0", "i2", 1_600_000_001),  # another item
        ("u1", "i1", 1_600_000_001),  # another user
    ],
)
def test_fingerprint_holds_the_training_interactions(write_dataset, built, tmp_path, changed):
    rows = [(user, item, time + 1_600_000_000) for user, item, time in histories(6, 5, 4)]
    write_dataset(tmp_path, "toy", rows)
    first = training_of(built, "SASRec")
    for model in ("Pop", "HLLM", "BPR"):
        assert training_of(built, model) == first
    assert training_of(built, "SASRec", eval_args=args(split={"LS": "test_only"})) != first
    write_dataset(tmp_path, "toy", [changed if row == rows[1] else row for row in rows])
    assert training_of(built, "SASRec") != first


def test_fingerprint_of_training_leaves_the_targets_out(write_dataset, built, tmp_path):
    rows = histories(6, 5, 4)
    write_dataset(tmp_path, "toy", rows)
    first = training_of(built, "SASRec")
    write_dataset(tmp_path, "toy", [("u0", "i4", 9) if row == rows[5] else row for row in rows + [("u9", "i5", 1)]])
    assert training_of(built, "SASRec", user_inter_num_interval="[2,inf)") == first


# ---- splits ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {"LS": "all"}}, "split LS: 'all' is not one of valid_and_test, valid_only, test_only"),
        ({"split": {"LS": ["valid_and_test"]}}, "split LS: .* is not one of"),
        ({"split": {"XS": [8, 1, 1]}}, "split: unknown key 'XS'; there are LS, RS, TS"),
        ({"split": {"LS": "valid_only", "RS": [8, 1, 1]}}, "is not one of LS, RS, TS"),
        ({"split": {}}, "is not one of LS, RS, TS"),
        ({"split": None}, "split must not be empty; leave it out for the default"),
        ({"split": "LS"}, "is not one of LS, RS, TS"),
        ({"split": {"RS": [0.8, 0.2]}}, "split RS: .* must be three ratios"),
        ({"split": {"RS": [0, 0.5, 0.5]}}, "split RS: .* must be three ratios"),
        ({"split": {"RS": [0.9, -0.1, 0.2]}}, "split RS: .* must be three ratios"),
        ({"split": {"RS": ["8", "1", "1"]}}, "split RS: .* must be three ratios"),
        ({"split": {"RS": 0.8}}, "split RS: .* must be three ratios"),
        ({"split": {"TS": [0.8, 0.2]}}, "split TS: .* must be three ratios"),
        ({"split": {"TS": "0.8"}}, "split TS: .* must be three ratios"),
        ({"split": {"RS": [8, 1, 1]}, "group_by": "item"}, "group_by 'item' is neither user nor none"),
        ({"order": "RO"}, "order 'RO': sequences need order TO"),
    ],
)
@pytest.mark.parametrize("model", ["SASRec", "Pop"])
def test_splits_that_do_not_exist(write_dataset, built, tmp_path, model, changes, message):
    write_dataset(tmp_path, "toy", histories(6, 6))
    with pytest.raises(ConfigError, match=message):
        built(model, eval_args=args(**changes))


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"LS": "test_only"}, {"RS": [8, 1, 1]}])
def test_nobody_left_to_test(write_dataset, built, tmp_path, split):
    write_dataset(tmp_path, "toy", histories(2, 1, 2))
    with pytest.raises(DataError, match="data set 'toy': no user is left to test; .*longest: 2 items"):
        built(eval_args=args(split=split))


def test_nothing_left_to_train_on(write_dataset, built, tmp_path):
    write_dataset(tmp_path, "toy", histories(3, 3))
    with pytest.raises(DataError, match="no target is left to train on"):
        built(reference=["short_users"])


@pytest.mark.parametrize(
    ("split", "short"),
    [
        ({"LS": "valid_and_test"}, 3),
        ({"LS": "valid_only"}, 2),
        ({"LS": "test_only"}, 2),
        ({"RS": [8, 1, 1]}, 3),
        ({"RS": [8, 0, 2]}, 2),
    ],
)
def test_short_users_are_counted_or_refused(write_dataset, built, tmp_path, caplog, split, short):
    write_dataset(tmp_path, "toy", histories(6, 3, 4, 1, 2))
    whole, train, *_ = built(eval_args=args(split=split))
    assert f"{short} users are too short for " in caplog.text
    assert whole.statistics() == {"users": 5, "items": 6, "interactions": 16, "mean_length": 3.2}
    with pytest.raises(DataError, match=f"strict_data: {short} users are too short for"):
        built(eval_args=args(split=split), strict_data=True)


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"RS": [8, 1, 1]}])
def test_long_users_pass_strictly(write_dataset, built, tmp_path, caplog, split):
    write_dataset(tmp_path, "toy", histories(6, 5, 4))
    assert [len(part) for part in built(eval_args=args(split=split), strict_data=True)[1:]] == [6, 3, 3]
    assert "too short" not in caplog.text
