"""Markov against plain counting."""

import numpy as np
import pytest
import torch

import recbole_hllm  # noqa: F401

# isort: split
from recbole.data.interaction import Interaction

from recbole_hllm.runs.run import load_run, run
from recbole_hllm.training.checkpoint import read_tensors
from recbole_hllm.training.parameters import counted

# The last two of each user are held out.
HISTORIES = {
    "u1": "a b c b a z",
    "u2": "a b a b c a",
    "u3": "a c d e a b",
    "u4": "d e c a z",
    "u5": "b a y z",
    "u6": "c d y",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_dataset):
    folder = tmp_path_factory.mktemp("markov")
    rows = [(user, item, place) for user, items in HISTORIES.items() for place, item in enumerate(items.split())]
    write_dataset(folder, "toy", rows)
    keys = {"data_path": str(folder), "topk": [2, 5], "valid_metric": "MRR@2", "show_progress": False,
            "MAX_ITEM_LIST_LENGTH": 3, "train_batch_size": 4, "metric_decimal_place": 10}  # fmt: skip
    run("Markov", "toy", config_dict=keys, run_dir=folder / "run")
    return load_run(folder / "run")


def rows_of(loaded, histories, items=None):
    """Rows as the loader makes them, of histories such as "a b"; empty ones too."""
    ids = [loaded.dataset.token2id("item_id", history.split()) if history else [] for history in histories]
    padded = torch.zeros(len(ids), 3, dtype=torch.long)
    for row, history in enumerate(ids):
        padded[row, : len(history)] = torch.as_tensor(np.asarray(history, dtype=np.int64))
    rows = {"item_id_list": padded, "item_length": torch.tensor([len(history) for history in ids])}
    if items is not None:
        rows["item_id"] = torch.as_tensor(loaded.dataset.token2id("item_id", items))
    return Interaction(rows)


def plain_order(last, token_ids):
    """All items, best first, by counting pairs of the training sequences in plain Python."""
    training = [items.split()[: max(len(items.split()) - 2, 2)] for items in HISTORIES.values()]
    flat = [item for sequence in training for item in sequence]
    pairs = [pair for sequence in training for pair in zip(sequence[:-1], sequence[1:], strict=True)]
    return sorted(token_ids, key=lambda item: (-pairs.count((last, item)), -flat.count(item), token_ids[item]))


def test_the_order_is_that_of_plain_counting(finished):
    tokens = {token: index for index, token in enumerate(finished.dataset.field2id_token["item_id"]) if index}
    for last in (*tokens, ""):
        scores = finished.model.full_sort_predict(rows_of(finished, [last]))[0]
        ranked = finished.dataset.id2token("item_id", scores.argsort(descending=True)[:-1])
        assert list(ranked) == plain_order(last, tokens)
        assert len(scores.unique()) == len(scores) and scores[0] == scores.min()


def test_its_counts_are_what_is_needed_and_nothing_is_trained(finished):
    training = [items.split()[: max(len(items.split()) - 2, 2)] for items in HISTORIES.values()]
    pairs = {pair for sequence in training for pair in zip(sequence[:-1], sequence[1:], strict=True)}
    needed = len(pairs) + finished.dataset.item_num
    sizes = {"parameters_total": needed, "parameters_trained": 0, "parameters_inference": needed}
    assert counted(finished.model) == sizes


def test_a_score_is_the_count_and_less_than_one_for_popularity(finished):
    rows = rows_of(finished, ["a", "c a", "d", "z", ""], ["b", "b", "e", "a", "b"])
    assert finished.model.predict(rows).floor().tolist() == [3, 3, 2, 0, 0]


def test_held_out_items_do_not_count(finished):
    """a is followed by z and by b at the ends of histories, which training must not see."""
    rows = rows_of(finished, ["a", "y", "e"], ["z", "z", "a"])
    assert finished.model.predict(rows).floor().tolist() == [0, 0, 0]


def test_a_row_has_its_own_scores_whatever_the_batch(finished):
    lasts = ["a", "", "b", "z", "c", "d", "a"]
    together = finished.model.full_sort_predict(rows_of(finished, lasts))
    for row, last in enumerate(lasts):
        assert torch.equal(finished.model.full_sort_predict(rows_of(finished, [last]))[0], together[row])


def test_only_pairs_that_occur_are_kept(finished):
    tensors = read_tensors(finished.run_dir / "best" / "weights.safetensors")
    assert tensors["model.pairs"].shape == tensors["model.counts"].shape == (8,)
    assert tensors["model.pairs"].diff().min() > 0 and tensors["model.counts"].min() >= 1


def test_ready_made_histories_count_each_target_once(tmp_path, write_dataset):
    """Rows of ``benchmark_filename`` repeat a history; its pairs are not counted again with every row."""
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"
    parts = {
        "train": [("u1", "a", "b", 1), ("u1", "a b", "a", 2), ("u1", "a b a", "b", 3)],
        "valid": [("u1", "a b a b", "a", 4)],
        "test": [("u1", "a b a b a", "c", 5)],
    }
    for phase, rows in parts.items():
        write_dataset(tmp_path, "toy", rows, header=header, suffix=f"{phase}.inter")
    keys = {"data_path": str(tmp_path), "benchmark_filename": ["train", "valid", "test"], "topk": [2],
            "alias_of_item_id": ["item_id_list"], "valid_metric": "MRR@2", "show_progress": False}  # fmt: skip
    run("Markov", "toy", config_dict=keys, run_dir=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    rows = rows_of(loaded, ["a", "b", "a"], ["b", "a", "c"])
    assert loaded.model.predict(rows).floor().tolist() == [2, 1, 0]


@pytest.mark.parametrize("smoothing", [0.1, 2.0])
def test_smoothed_probabilities_by_plain_counting(finished, smoothing):
    tokens = {token: index for index, token in enumerate(finished.dataset.field2id_token["item_id"]) if index}
    training = [items.split()[: max(len(items.split()) - 2, 2)] for items in HISTORIES.values()]
    flat = [item for sequence in training for item in sequence]
    pairs = [pair for sequence in training for pair in zip(sequence[:-1], sequence[1:], strict=True)]
    popular, values = finished.model.smoothed(smoothing)
    assert popular[0] == 0
    for first in tokens:
        found = popular.repeat(1, 1)
        finished.model.add_pairs(found, rows_of(finished, [first]), values)
        total = sum(pair[0] == first for pair in pairs)
        for item, index in tokens.items():
            share = (flat.count(item) + 1) / (len(flat) + len(tokens))
            expected = (pairs.count((first, item)) + smoothing * share) / (total + smoothing)
            assert (found[0, index].exp() * smoothing / (total + smoothing)).item() == pytest.approx(expected)


def test_values_of_pairs_are_multiplied_by_weights_of_rows(finished):
    rows = rows_of(finished, ["a", "b", ""])
    found = torch.zeros(3, finished.model.n_items)
    finished.model.add_pairs(found, rows, finished.model.counts, torch.tensor([2.0, 0.5, 1.0]))
    counts = finished.model.full_sort_predict(rows) - finished.model.tie_breaker
    torch.testing.assert_close(found.double(), counts * torch.tensor([[2], [0.5], [1]]), atol=1e-6, rtol=0)
    assert counts[0].sum() > 0 and counts[1].sum() > 0
