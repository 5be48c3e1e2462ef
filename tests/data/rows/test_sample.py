"""A sample of the users is evaluated: the same for every model, whole, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.data.rows.sample import sampled
from recbole_hllm.errors import DataError

ITEMS = ("item_id:token\ttitle:token_seq\tclass:token", [(f"i{n}", f"w{n}", f"c{n % 3}") for n in range(1, 16)])
RATIO = {"eval_args": {"split": {"RS": [0.5, 0.2, 0.3]}}}


@given(st.lists(st.integers(1, 30)), st.integers(1, 40), st.integers(0, 9))
def test_a_sample_has_whole_users_and_grows_with_its_number(users, number, seed):
    users = np.array(users, dtype=np.int64)
    chosen = set(users[sampled(users, number, seed)].tolist())
    assert len(chosen) == min(number, len(set(users.tolist())))
    assert not chosen & set(users[~sampled(users, number, seed)].tolist()), "all entries of a user or none"
    assert chosen <= set(users[sampled(users, number + 1, seed)].tolist())


@given(st.sets(st.integers(1, 60), min_size=2), st.integers(0, 9))
def test_a_sample_depends_on_seed_and_ids_alone(ids, seed):
    ids = np.array(sorted(ids))
    kept = set(ids[sampled(ids, len(ids) // 2, seed)].tolist())
    shuffled = np.repeat(ids, 2)[np.random.default_rng(seed).permutation(2 * len(ids))]
    assert set(shuffled[sampled(shuffled, len(ids) // 2, seed)].tolist()) == kept
    others = ids[~np.isin(ids, [max(set(ids.tolist()) - kept)])]  # one who is not drawn is not there
    assert set(others[sampled(others, len(ids) // 2, seed)].tolist()) == kept


def test_seeds_draw_other_samples_and_everybody_is_as_likely():
    users, times = np.arange(1, 101), np.zeros(101)
    for seed in range(400):
        times[users[sampled(users, 25, seed)]] += 1
    assert times[0] == 0 and times[1:].mean() == 100 and 60 < times[1:].min() and times[1:].max() < 140


@pytest.fixture
def parts(built, write_dataset, tmp_path, random_rows):
    """(model, keys) -> the whole and its parts, of 30 users."""

    def make(model="SASRec", **keys):
        rows = random_rows(users=30, items=15, seed=3)
        write_dataset(tmp_path, "toy", rows, items=("item_id:token\ttitle:token_seq", [("i1", "a b")]))
        return built(model, **keys)

    return make


def pairs_of(part):
    """(user, item) of the targets, in order."""
    users = part.sequences.users[part.sequences.of(part.held_out)]
    return list(zip(users.tolist(), part.sequences.items[part.held_out].tolist(), strict=True))


@pytest.mark.parametrize("keys", [{}, RATIO, {**RATIO, "eval_targets": "together"}], ids=["last", "ratio", "together"])
def test_all_targets_of_some_users_and_all_of_the_training(parts, keys):
    whole, train, *evaluated = parts(**keys)
    for model in ("SASRec", "HLLM", "Pop", "BPR"):
        smaller, same, *sample = parts(model, eval_users=8, **keys)
        digests = [fingerprint(data, {}, {}) for data in (whole, smaller)]
        assert digests[0] == digests[1] and np.array_equal(smaller.whole_counts(), whole.whole_counts())
        users = []
        for part, everything in zip(sample, evaluated, strict=True):
            users.append({user for user, _ in pairs_of(part)})
            assert len(users[-1]) == 8
            assert pairs_of(part) == [pair for pair in pairs_of(everything) if pair[0] in users[-1]]
            assert len(part) == (8 if "eval_targets" in keys else len(pairs_of(part)))
        assert len(users[0] & users[1]) >= 6, "nearly the same users: who has no target in one of them is replaced"


def test_the_sample_is_said_and_is_in_the_fingerprint(parts, caplog):
    def digests(**keys):
        whole, _, valid, test = parts(**keys)
        return fingerprint(whole, {"valid": valid, "test": test}, {"valid": None, "test": None})

    caplog.set_level("INFO")
    everybody, eight = digests(), digests(eval_users=8)
    assert "eval_users: 8 of 28 users are evaluated in the test" in caplog.text
    assert {key for key in everybody if everybody[key] != eight[key]} == {
        f"{phase}_{what}" for phase in ("valid", "test") for what in ("targets", "pairs")
    }
    assert digests(eval_users=8, seed=1)["test_pairs"] != eight["test_pairs"]
    assert digests(eval_users=10_000) == everybody


def test_who_is_trained_on_says_nothing_of_who_is_evaluated(parts):
    """Both are draws with the same seed; they must not be the same draw."""
    _, train, _, test = parts("Pop", train_user_fraction=0.3, eval_users=8)
    trained = set(train.sequences.users[train.train_lengths > 0].tolist())
    tested = {user for user, _ in pairs_of(test)}
    assert 0 < len(tested & trained) < len(tested) == 8


@pytest.fixture
def rated(built, write_dataset, tmp_path, random_rows):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"

    def make(model, **keys):
        write_dataset(tmp_path, "toy", random_rows(users=30, seed=1, rated=True), items=ITEMS, header=header)
        return built(model, eval_args={"split": {"RS": [0.5, 0.25, 0.25]}}, **keys)

    return make


@pytest.mark.parametrize("model", ["DIN", "DeepFM"])
def test_labelled_rows_of_a_sample(rated, model):
    whole, train, *evaluated = rated(model)
    _, same, *sample = rated(model, eval_users=9)
    assert np.array_equal(train.targets, same.targets)
    for part, everything in zip(sample, evaluated, strict=True):
        users = {user for user, _ in pairs_of(part)}
        assert len(users) == 9 < len({user for user, _ in pairs_of(everything)})
        assert pairs_of(part) == [pair for pair in pairs_of(everything) if pair[0] in users]


def test_a_sample_of_labelled_rows_of_one_class_is_refused(rated):
    with pytest.raises(DataError, match="one class only: all .* rows of the .* part .*, or raise eval_users"):
        for seed in range(30):
            rated("DIN", eval_users=1, seed=seed, valid_metric="AUC")
