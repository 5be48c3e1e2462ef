"""Rows of all targets of a user: which they are for every split, what may not have them, and what tables compare."""

import numpy as np
import pytest
import torch

from recbole_hllm import create_dataset, data_preparation
from recbole_hllm.data.loader import CANDIDATES
from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.errors import ConfigError
from recbole_hllm.storage.cache import digest

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

ARGS = {"split": {"RS": [0.5, 0.2, 0.3]}, "order": "TO", "group_by": "user", "mode": "full"}
SPLITS = {
    "ratio": ARGS,
    "over all users": {**ARGS, "group_by": "none"},
    "time": {**ARGS, "split": {"TS": [0.5, 0.2, 0.3]}},
    "leave one out": {**ARGS, "split": {"LS": "valid_and_test"}},
}
FILES = ["part1", "part2", "part3"]


@pytest.fixture
def loaders(write_dataset, toy_config, tmp_path, random_rows):
    """The three loaders of a model on random data, all targets of a user together unless said."""

    def make(model="SASRec", rows=None, **keys):
        write_dataset(tmp_path, "toy", rows or random_rows(users=20, items=25, longest=15, seed=7))
        config = toy_config(model, **{"eval_targets": "together", "eval_args": ARGS, **keys})
        return data_preparation(config, create_dataset(config))

    return make


def rows_of(loader):
    """user token -> (history without padding, targets), in tokens, of every row."""
    data, rows = loader._dataset, {}
    for batch, _, row_of, targets in loader:
        for row in range(len(batch)):
            user = data.id2token("user_id", batch["user_id"][row].item())
            history = batch["item_id_list"][row][: batch["item_length"][row]]
            assert user not in rows, "one row of a user"
            tokens = (data.id2token("item_id", items.numpy()).tolist() for items in (history, targets[row_of == row]))
            rows[user] = tuple(tokens)
            assert batch["item_id"][row] == targets[row_of == row][0]
    return rows


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("phase", [1, 2])
def test_a_row_has_what_was_before_the_first_of_its_targets(loaders, random_rows, split, phase):
    rows = random_rows(users=20, items=25, longest=15, seed=7)
    each = loaders(rows=rows, eval_args=SPLITS[split], eval_targets="each")[phase]._dataset.inter_feat
    together = loaders(rows=rows, eval_args=SPLITS[split], eval_batch_size=3)[phase]
    tokens = (together._dataset.id2token(name, each[name].numpy()) for name in ("user_id", "item_id"))
    expected = {}
    for user, item, time in sorted(zip(*tokens, each["timestamp"].tolist(), strict=True), key=lambda row: row[2]):
        had = sorted((row for row in rows if row[0] == user and row[2] < time), key=lambda row: row[2])
        expected.setdefault(user, ([row[1] for row in had][-5:], []))[1].append(item)
    assert rows_of(together) == expected and len(expected) == len(together._dataset)
    assert (max(len(targets) for _, targets in expected.values()) > 1) == (split != "leave one out")


def test_candidates_are_the_targets_and_as_many_drawn_for_every_row(loaders):
    test = loaders("HLLM", eval_args={**ARGS, "mode": "uni4"}, eval_batch_size=4)[2]
    sequences, counts = test._dataset.sequences, []
    assert test.candidates.shape == (len(test._dataset), 4)
    for batch, _, row_of, targets in test:
        for row in range(len(batch)):
            user, candidates = batch["user_id"][row], set(batch[CANDIDATES][row].tolist())
            own = set(sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist())
            wanted = set(targets[row_of == row].tolist())
            assert candidates & own == wanted and len(candidates - wanted) == 4 and 0 not in candidates
            counts.append(len(wanted))
    assert len(set(counts)) > 2
    again = loaders("BPR", eval_args={**ARGS, "mode": "uni4"})[2]
    assert np.array_equal(again.candidates, test.candidates)


@pytest.mark.parametrize("reference", [False, ["mask_target"]])
def test_only_what_was_before_the_first_target_is_masked(loaders, random_rows, reference):
    rows = random_rows(users=20, items=9, longest=15, seed=7)
    test = loaders(rows=rows, mask_history=True, reference=reference, eval_batch_size=6)[2]
    data, spared = test._dataset, 0
    for batch, (masked_rows, items), row_of, targets in test:
        for row in range(len(batch)):
            user = data.id2token("user_id", batch["user_id"][row].item())
            wanted = data.id2token("item_id", targets[row_of == row].numpy()).tolist()
            events = [event[1] for event in sorted((event for event in rows if event[0] == user), key=lambda e: e[2])]
            had, last = events[: -len(wanted)], events[-len(wanted) :]
            assert last == wanted
            spared += len(set(had) & set(wanted))
            masked = set(data.id2token("item_id", items[masked_rows == row].numpy()).tolist())
            assert masked == (set(had) if reference else set(had) - set(wanted))
    assert spared > 0


def test_files_of_benchmarks_are_not_filtered(loaders):
    with pytest.raises(ConfigError, match="filter_inter_by_user_or_item and benchmark_filename cannot be set together"):
        loaders(benchmark_filename=FILES, filter_inter_by_user_or_item=True)


def test_files_of_benchmarks_have_such_rows_too(loaders, write_dataset, toy_config, tmp_path):
    events = [(f"u{user}", f"i{(user + 2 * n) % 11}", n) for user in range(4) for n in range(9)]
    for name, begin, end in zip(FILES, (0, 4, 6), (4, 6, 9), strict=True):
        part = [event for event in events if begin <= event[2] < end]
        write_dataset(tmp_path, "toy", part, suffix=f"{name}.inter")
    _, valid, test = loaders(rows=events, benchmark_filename=FILES, MAX_ITEM_LIST_LENGTH=20)
    for loader, begin, end in ((valid, 4, 6), (test, 6, 9)):
        assert rows_of(loader) == {
            f"u{user}": tuple([f"i{(user + 2 * n) % 11}" for n in part] for part in (range(begin), range(begin, end)))
            for user in range(4)
        }


def test_ready_made_histories_are_refused(write_dataset, toy_config, tmp_path):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"
    for number, name in enumerate(FILES):
        rows = [(f"u{user}", " ".join(f"i{n}" for n in range(number + 2)), "i7", number) for user in range(3)]
        write_dataset(tmp_path, "toy", rows, header=header, suffix=f"{name}.inter")
    given = {"benchmark_filename": FILES, "alias_of_item_id": ["item_id_list"]}
    config = toy_config("SASRec", **given, eval_targets="together")
    with pytest.raises(ConfigError, match="eval_targets: ready-made histories of benchmark_filename bring a row"):
        create_dataset(config).build()
    assert len(create_dataset(toy_config("SASRec", **given)).build()[2]) == 3


def test_fingerprints_tell_both_ways_apart(loaders):
    def of(model, **keys):
        train, valid, test = loaders(model, **keys)
        parts = {"valid": valid._dataset, "test": test._dataset}
        return fingerprint(train._dataset, parts, {"valid": valid.candidates, "test": test.candidates})

    shared = {"metrics": ["Recall"], "topk": [5], "valid_metric": "Recall@5"}
    together, each = of("SASRec", **shared), of("SASRec", eval_targets="each", **shared)
    assert {key for key in each if each[key] != together[key]} == {"protocol"}
    for model in ("HLLM", "Pop", "BPR", "Markov"):
        assert of(model, **shared) == together
    config = loaders(eval_targets="each", **shared)[0].config
    names = ("eval_args", "metrics", "topk", "mask_history", "metric_decimal_place")
    assert each["protocol"] == digest({name: config[name] for name in names}), "as before there was this key"


def test_several_targets_are_each_a_row_by_default(loaders):
    test = loaders(eval_targets="each", eval_batch_size=1000)[2]
    (batch, masked, row_of, targets), *more = test
    assert not more and masked is None and len(batch) == len(test._dataset.held_out) > len(batch["user_id"].unique())
    assert torch.equal(row_of, torch.arange(len(batch))) and torch.equal(targets, batch["item_id"])
