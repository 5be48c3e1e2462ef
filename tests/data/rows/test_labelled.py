"""Labelled rows: labels, histories, split, and the same rows for every model."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.data.rows.labelled_dataset import split_by_time
from recbole_hllm.data.rows.sequences import Sequences
from recbole_hllm.errors import ConfigError, DataError

RATED = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
LABELLED = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
ITEMS = ("item_id:token\ttitle:token_seq\tclass:token", [(f"i{n}", f"w{n}", f"c{n % 3}") for n in range(1, 16)])
MODELS = ("DIN", "DIEN", "DeepFM", "FM")
RATIOS = {"split": {"RS": [0.5, 0.25, 0.25]}}


def part_rows(part):
    """(user, item, label, time) of each row, and the (items, length) of its history or None."""
    rows = part[list(range(len(part)))]
    tokens = part.field2id_token["item_id"]
    named = [part.field2id_token["user_id"][rows["user_id"].numpy()].tolist(), tokens[rows["item_id"].numpy()].tolist()]
    times = part.sequences.timestamps[part.targets]
    histories = [None] * len(part)
    if "item_length" in rows:
        pairs = zip(rows["item_id_list"], rows["item_length"].tolist(), strict=True)
        histories = [(tokens[items[:length].numpy()].tolist(), items[length:].tolist()) for items, length in pairs]
    return list(zip(*named, rows["label"].tolist(), times.tolist(), strict=True)), histories


def rated_rows(random_rows, seed=0, ties=1):
    """(user, item, rating, time); ``ties`` > 1 makes several events share a time."""
    return [(user, item, rating, time // ties) for user, item, rating, time in random_rows(seed=seed, rated=True)]


@pytest.fixture
def rated(tmp_path, write_dataset, random_rows):
    """Writes the toy data set with ratings and returns its rows in file order."""

    def make(ties=1, seed=0):
        rows = rated_rows(random_rows, seed, ties)
        write_dataset(tmp_path, "toy", rows, items=ITEMS, header=RATED)
        return rows

    return make


@pytest.mark.parametrize("history_filter", ["positive", "all"])
@pytest.mark.parametrize("ties", [1, 20])
def test_rows_and_histories_by_a_slow_loop(rated, built, ties, history_filter):
    events = rated(ties)
    _, *parts = built("DIN", history_filter=history_filter, eval_args=RATIOS)
    found, empty, cut = [], 0, 0
    for part in parts:
        for (user, item, label, time), (history, padding) in zip(*part_rows(part), strict=True):
            found.append((user, item, label, time))
            before = sorted((e for e in events if e[0] == user and e[3] < time), key=lambda event: event[3])
            expected = [e[1] for e in before if history_filter == "all" or e[2] >= 4]
            assert history == expected[-5:] and padding == [0] * (5 - len(history))
            empty, cut = empty + (not expected), cut + (len(expected) > 5)
    assert sorted(found) == sorted((u, i, float(r >= 4), float(t)) for u, i, r, t in events)
    assert empty > 0 and (cut > 0 or history_filter == "positive")


@pytest.mark.parametrize("ties", [1, 20])
def test_the_split_is_in_time_order_and_no_moment_is_in_two_parts(rated, built, ties):
    rated(ties)
    whole, *parts = built("DIN", eval_args=RATIOS)
    times = [whole.sequences.timestamps[part.targets] for part in parts]
    assert times[0].max() < times[1].min() and times[1].max() < times[2].min()
    assert [len(part) for part in parts] == [len(t) for t in times] and min(map(len, parts)) > 5
    assert np.array_equal(whole.training_positions, parts[0].targets)


@given(st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=4).filter(any), st.data())
def test_a_split_by_time(histories, data):
    users = np.repeat(np.arange(len(histories)), [len(own) for own in histories])
    times = np.array([time for own in histories for time in sorted(own)])
    bounds = sorted(data.draw(st.lists(st.integers(0, len(times)), min_size=2, max_size=2)))
    sequences = Sequences.from_sorted(users, users, times, len(histories))
    parts = [np.asarray(part) for part in split_by_time(sequences, bounds)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(times)))
    for number, bound in enumerate(bounds):
        before, after = np.concatenate(parts[: number + 1]), np.concatenate(parts[number + 1 :])
        assert not len(before) or not len(after) or times[before].max() < times[after].min()
        whole = [0, *(int((times <= time).sum()) for time in times)]
        assert len(before) == min(whole, key=lambda number: (abs(number - bound), -number))


def test_rows_are_the_same_for_all_models(rated, built, toy_config):
    rated(ties=4)
    seen, digests = {}, {}
    for model in MODELS:
        whole, *parts = built(model, eval_args=RATIOS)
        seen[model] = [part_rows(part) for part in parts]
        phases = dict(zip(("valid", "test"), parts[1:], strict=True))
        digests[model] = fingerprint(whole, phases, dict.fromkeys(phases))
    for model in MODELS:
        assert [rows for rows, _ in seen[model]] == [rows for rows, _ in seen["DIN"]]
        assert digests[model] == digests["DIN"]
    assert [histories for _, histories in seen["DIEN"]] == [histories for _, histories in seen["DIN"]]
    assert all(histories == [None] * len(rows) for rows, histories in seen["DeepFM"])


@pytest.mark.parametrize("changed", [{"threshold": {"rating": 3}}, {"history_filter": "all"}])
def test_the_fingerprint_tells_other_labels_and_histories(rated, built, changed):
    rated()
    digests = []
    for keys in ({}, changed):
        whole, train, valid, test = built("DIN", eval_args=RATIOS, **keys)
        digests.append(fingerprint(whole, {"valid": valid, "test": test}, {"valid": None, "test": None}))
    different = {key for key in digests[0] if digests[0][key] != digests[1][key]}
    expected = {"training_labels", "valid_labels", "test_labels"} if "threshold" in changed else {"history_filter"}
    assert different == expected


def test_a_context_aware_model_has_no_list_columns_as_features(rated, built):
    rated()
    _, train, *_ = built("DeepFM", eval_args=RATIOS)
    assert set(train.fields()) == {"user_id", "item_id", "timestamp", "label"}


def test_items_beside_the_history_are_others(rated, built):
    rated()
    _, train, *_ = built("DIEN", eval_args=RATIOS, history_filter="all")
    rows = train[:]
    items, others = rows["item_id_list"], rows["neg_item_id_list"]
    assert torch.equal(items == 0, others == 0)
    assert (items != others)[items > 0].all() and others.max() < train.item_num and len(others.unique()) > 8


# ---- labels ----


def test_a_column_of_labels_is_stronger_than_our_threshold(tmp_path, write_dataset, built, random_rows):
    rows = [(u, i, r % 2, r, t) for u, i, r, t in rated_rows(random_rows)]
    header = "user_id:token\titem_id:token\tlabel:float\trating:float\ttimestamp:float"
    write_dataset(tmp_path, "toy", rows, header=header)
    whole, *parts = built("DIN", eval_args=RATIOS)
    expected = sorted((u, i, float(label), float(t)) for u, i, label, _, t in rows)
    assert sorted(sum((part_rows(part)[0] for part in parts), [])) == expected
    assert whole.config["threshold"] is None and whole.config.settings["threshold"] is None
    whole, *_ = built("DIN", eval_args=RATIOS, threshold={"rating": 5})
    assert whole.labels.sum() == sum(row[3] == 5 for row in rows)


def test_a_label_field_of_another_name(tmp_path, write_dataset, built, random_rows):
    rows = [(u, i, r % 2, t) for u, i, r, t in rated_rows(random_rows)]
    write_dataset(tmp_path, "toy", rows, header=LABELLED.replace("label", "click"))
    whole, train, *_ = built("DeepFM", eval_args=RATIOS, LABEL_FIELD="click")
    assert train[:]["click"].mean() == whole.labels[train.targets].mean() and 0 < whole.labels.mean() < 1


def test_no_label_and_no_threshold_names_both_keys(tmp_path, write_dataset, built, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    with pytest.raises(ConfigError, match=r"(?s)toy\.inter has no column 'rating'.*LABEL_FIELD.*threshold"):
        built("DIN")
    with pytest.raises(ConfigError, match=r"(?s)toy\.inter has no column 'label'.*LABEL_FIELD.*threshold"):
        built("DeepFM", threshold=None)


@pytest.mark.parametrize("threshold", [4, {"rating": "4"}, {}, {"rating": 4, "x": 1}, {"rating": True}])
def test_a_threshold_of_another_kind(rated, built, threshold):
    rated()
    with pytest.raises(ConfigError, match="threshold: .* is not (a dict|one column and a number)"):
        built("DIN", threshold=threshold)


@pytest.mark.parametrize("cell, words", [("", "nan is not 0 or 1"), ("2", "2.0 is not 0 or 1; set threshold")])
def test_a_label_that_is_none_names_its_line(tmp_path, write_dataset, built, cell, words):
    rows = [("u1", "i1", 1, 1), ("u1", "i2", 0, 2), ("u2", "i1", cell, 3)]
    write_dataset(tmp_path, "toy", rows, header=LABELLED)
    with pytest.raises(DataError, match=rf"toy\.inter, line 4, column label: {words}"):
        built("DIN")


def test_a_missing_rating_is_no_label(tmp_path, write_dataset, built):
    write_dataset(tmp_path, "toy", [("u1", "i1", 5, 1), ("u1", "i2", "", 2)], header=RATED)
    with pytest.raises(DataError, match=r"line 3, column rating: nan is not a number"):
        built("DIN")


def test_labels_must_be_numbers(tmp_path, write_dataset, built):
    header = LABELLED.replace("label:float", "label:token")
    write_dataset(tmp_path, "toy", [("u1", "i1", 1, 1), ("u1", "i2", 0, 2)], header=header)
    with pytest.raises(DataError, match="line 1: column 'label' must be label:float, not label:token"):
        built("DIN")


@pytest.mark.parametrize("rating", [1, 5])
def test_one_class_only(tmp_path, write_dataset, built, rating):
    rows = [(f"u{n % 3}", f"i{n % 4}", rating, n) for n in range(20)]
    write_dataset(tmp_path, "toy", rows, header=RATED)
    with pytest.raises(DataError, match=rf"one class only: all 20 rows have the label {rating // 5} \(rating >= 4\)"):
        built("DIN")


def test_one_class_only_in_a_part(tmp_path, write_dataset, built):
    rows = [(f"u{n % 3}", f"i{n % 4}", 5 if n > 14 else 1 + n % 5, n) for n in range(20)]
    write_dataset(tmp_path, "toy", rows, header=RATED)
    with pytest.raises(DataError, match="one class only: all 5 rows of the test part have the label 1"):
        built("DeepFM", eval_args=RATIOS)


def test_one_moment_leaves_nothing_to_test(tmp_path, write_dataset, built):
    write_dataset(tmp_path, "toy", [(f"u{n}", f"i{n % 4}", 1 + n % 5, 7) for n in range(20)], header=RATED)
    with pytest.raises(DataError, match="leaves the valid part empty: 20 interactions, at 1 different"):
        built("DIN")


@pytest.mark.parametrize("name", ["GAUC", "UAUC", "wuauc"])
def test_metrics_of_users_choose_no_epoch_where_none_has_both_labels(tmp_path, write_dataset, built, name):
    rows = [(f"u{n % 4}", f"i{n % 5}", 5 * (n % 2), n) for n in range(40)]
    write_dataset(tmp_path, "toy", rows, header=RATED)
    words = f"valid_metric: {name}: no user of data set 'toy' has rows of both labels among the 10 of validation"
    with pytest.raises(DataError, match=words):
        built("DIN", eval_args=RATIOS, metrics=[name], valid_metric=name)
    assert len(built("DIN", eval_args=RATIOS, metrics=["AUC", name], valid_metric="AUC")[2]) == 10
    rows[25] = ("u1", "i0", 0, 25)  # the others of this user are liked
    write_dataset(tmp_path, "toy", rows, header=RATED)
    assert len(built("DIN", eval_args=RATIOS, metrics=[name], valid_metric=name)[2]) == 10


# ---- settings ----

ARGS = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "none", "mode": "labeled"}


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"history_filter": "positiv"}, "history_filter: 'positiv' .*did you mean 'positive'"),
        ({"history_filter": None}, "history_filter must not be empty"),
        ({"eval_args": {**ARGS, "order": "RO"}}, "eval_args: .*split over all users in time order"),
        ({"eval_args": {**ARGS, "group_by": "user"}}, "eval_args: .*split over all users in time order"),
        ({"eval_args": {**ARGS, "split": {"LS": "valid_and_test"}}}, "eval_args: .*in time order"),
        ({"eval_args": {**ARGS, "mode": "full"}}, "eval_args: .*'mode': 'labeled'"),
        ({"eval_args": {**ARGS, "mode": {"valid": "labeled", "test": "uni100"}}}, "eval_args: .*'mode': 'labeled'"),
        ({"eval_args": {**ARGS, "split": {"RS": [0, 1, 1]}}}, "eval_args: split RS: .*three ratios"),
        ({"metrics": ["AUC", "Recall"]}, r"metrics: \['Recall'\]: labelled rows of DIN have AUC, LogLoss, MAE"),
        ({"valid_metric": "NDCG@10"}, "valid_metric: 'NDCG@10' is not computed; .* give auc, logloss, gauc"),
        ({"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}, "train_neg_sample_args: DIN"),
        ({"mask_history": True}, "mask_history: DIN"),
        ({"eval_targets": "together"}, "eval_targets: DIN scores labelled rows one by one"),
        ({"metrics": ["AUC"], "valid_metric": "UAUC"}, "valid_metric: 'UAUC' is not computed; .* give auc"),
    ],
)
def test_settings_that_do_not_fit_labels(toy_config, keys, words):
    with pytest.raises(ConfigError, match=words):
        toy_config("DIN", **keys)


@pytest.mark.parametrize("history_filter", ["positive", "all"])
def test_latest_rows_hold_the_last_events_a_history_may_have(rated, built, history_filter):
    """Of everything the user had, the test included; perhaps none."""
    events = rated()
    whole, *_ = built("DIN", history_filter=history_filter, eval_args=RATIOS)
    users, sequences = whole.latest_sequences()
    rows = whole.latest_rows(sequences)
    assert len(users) == len({event[0] for event in events}) and (rows["item_id"] == 0).all()
    for user, items, length in zip(users, rows["item_id_list"].numpy(), rows["item_length"].tolist(), strict=True):
        name = whole.id2token("user_id", user)
        had = sorted((event for event in events if event[0] == name), key=lambda event: event[3])
        expected = [event[1] for event in had if history_filter == "all" or event[2] >= 4][-5:]
        assert whole.id2token("item_id", items[:length]).tolist() == expected and (items[length:] == 0).all()
    assert (rows["item_length"] == 0).any() == (history_filter == "positive")


@pytest.mark.parametrize("key, value", [("train_user_fraction", 0.5), ("train_min_items", 2), ("train_first_items", 3)])
def test_labelled_rows_are_all_trained_on(rated, built, key, value):
    rated()
    with pytest.raises(ConfigError, match=f"^{key}: DIN trains on all labelled rows"):
        built("DIN", **{key: value})


def test_files_of_benchmarks_are_refused(rated, built):
    rated()
    with pytest.raises(ConfigError, match="benchmark_filename: labelled rows are split by eval_args"):
        built("DIN", benchmark_filename=["a", "b", "c"])


@pytest.mark.parametrize(
    "metrics, chosen, bigger",
    [
        (["GAUC"], "gauc", True), (["AUC", "LogLoss"], "LogLoss", False), ("AUC", "AUC", True),
        (["UAUC", "WUAUC"], "WUAUC", True), ("UAUC", "uauc", True),
    ],
)  # fmt: skip
def test_metrics_of_labels(toy_config, metrics, chosen, bigger):
    config = toy_config("DeepFM", metrics=metrics, valid_metric=chosen)
    assert config["valid_metric_bigger"] is bigger
    assert config["metrics"] == ([metrics] if isinstance(metrics, str) else metrics)
