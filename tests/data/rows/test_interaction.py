"""Interaction rows: what a user had before a target, where a model scores it."""

import numpy as np
import pytest
import torch

from recbole_hllm import data_preparation
from recbole_hllm.data.rows.columns import WHOLE_HISTORY

RATIOS = {"split": {"RS": [0.5, 0.2, 0.3]}}
CASES = {
    "leave one out": {},
    "ratio": {"eval_args": RATIOS},
    "together": {"eval_args": RATIOS, "eval_targets": "together"},
    "time": {"eval_args": {"split": {"TS": [0.5, 0.2, 0.3]}}},
    "candidates": {"eval_args": {"mode": "uni3"}, "mask_history": "both"},
}


@pytest.fixture
def rows(random_rows):
    return random_rows(users=15, items=30, longest=14, seed=3)


def plain_histories(rows, part):
    """Of each row of a part: the ids of the items that its user had before its target, oldest first."""
    users, items = part.field2token_id["user_id"], part.field2token_id["item_id"]
    targets = part[list(range(len(part)))]
    in_order = sorted(rows, key=lambda row: row[2])
    return [
        [items[item] for owner, item, time in in_order if users[owner] == user and time < at]
        for user, at in zip(targets["user_id"].tolist(), targets["timestamp"].tolist(), strict=True)
    ]


@pytest.mark.parametrize("model", ["EASE", "MultiVAE"])
@pytest.mark.parametrize("case", CASES)
def test_a_row_to_score_has_all_items_before_its_target(write_dataset, built, tmp_path, rows, case, model):
    write_dataset(tmp_path, "toy", rows)
    _, train, *parts = built(model, score_from="history", **CASES[case])
    assert WHOLE_HISTORY not in train[[0, 1]]
    lengths = []
    for part in parts:
        expected = plain_histories(rows, part)
        for numbers in (np.arange(len(part)), np.array([3, 0])):
            found = part[numbers][WHOLE_HISTORY]
            chosen = [expected[number] for number in numbers]
            assert found.dtype == torch.int64 and found.shape == (len(numbers), max(map(len, chosen)))
            assert found.tolist() == [one + [0] * (found.shape[1] - len(one)) for one in chosen]
        lengths += map(len, expected)
    assert max(lengths) > 5, "MAX_ITEM_LIST_LENGTH cuts nothing"
    assert any(len(set(one)) < len(one) for one in expected), "items that are repeated"


@pytest.mark.parametrize("case", CASES)
def test_loaders_bring_what_masks_know(write_dataset, toy_config, tmp_path, rows, case):
    write_dataset(tmp_path, "toy", rows)
    config = toy_config("EASE", score_from="history", eval_batch_size=4, topk=[1], valid_metric="MRR@1", **CASES[case])
    for loader in data_preparation(config, config.spec.rows.data_set(config))[1:]:
        first = 0
        for batch, *_ in loader:
            whose, items = loader._dataset.histories(np.arange(first, first + len(batch)))
            found = batch[WHOLE_HISTORY]
            assert torch.equal(found[found > 0], items) and torch.equal((found > 0).sum(1), torch.bincount(whose))
            first += len(batch)
        assert first == len(loader._dataset) > 4


@pytest.mark.parametrize(
    "model, keys", [("EASE", {}), ("MultiVAE", {}), ("LightGCN", {"score_from": "history"}),
                    ("CDAE", {"score_from": "history"})],
)  # fmt: skip
def test_by_default_and_of_other_models_a_row_has_none(write_dataset, built, tmp_path, rows, model, keys):
    write_dataset(tmp_path, "toy", rows)
    _, _, *parts = built(model, **keys)
    assert all(WHOLE_HISTORY not in part[[0]] for part in parts)


def test_ready_made_histories_are_the_rows_own(write_dataset, built, tmp_path):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"
    rows = [("a", "i1 i2 i1 i4 i3 i2 i4", "i2", 1), ("b", "i2", "i3", 2), ("a", "i1 i2", "i3", 3)]
    for part in ("train", "valid", "test"):
        write_dataset(tmp_path, "toy", rows, header=header, suffix=f"{part}.inter")
    keys = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"]}
    whole, _, _, test = built("EASE", score_from="history", **keys)
    found = [whole.id2token("item_id", row[row > 0].numpy()).tolist() for row in test[[2, 1, 0]][WHOLE_HISTORY]]
    assert found == [row[1].split() for row in reversed(rows)]
