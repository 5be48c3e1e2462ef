"""DiffRec and LDiffRec: what they read of a user."""

import pytest
import torch

from recbole_hllm.errors import ConfigError


@pytest.mark.parametrize("name", ["DiffRec", "LDiffRec"])
def test_with_time_a_users_last_items_weigh_more(on_toy, name):
    keys = {"time-aware": True, "w_min": 0.1, "w_max": 0.9}
    made = on_toy(name, **keys)
    model, rows, known = made.model, made.rows, made.known
    weights = model.get_rating_matrix(rows["user_id"])
    assert torch.equal(weights > 0, known[rows["user_id"]] > 0)
    for row in weights:
        kept = row[row > 0].sort().values
        torch.testing.assert_close(kept, torch.linspace(0.1, 0.9, len(kept)))
    plain = on_toy(name).model
    assert torch.equal(plain.get_rating_matrix(rows["user_id"]), known[rows["user_id"]])


def test_of_repeated_items_the_last_counts(on_toy, tmp_path, write_dataset):
    items = ["a", "b", "a", "c", "d", "e"]  # the last two are held out
    write_dataset(tmp_path, "again", [(f"u{user}", item, n) for user in range(3) for n, item in enumerate(items)])
    keys = {"data_path": str(tmp_path), "dataset": "again", "time-aware": True, "w_min": 0.1, "w_max": 0.4}
    model = on_toy("DiffRec", topk=[2], valid_metric="MRR@2", **keys).model
    row = model.get_rating_matrix(torch.tensor([2]))[0]
    assert sorted(row[row > 0].tolist()) == pytest.approx([0.2, 0.3, 0.4])


def test_groups_of_items_would_be_a_pickle(on_toy):
    with pytest.raises(ConfigError, match="n_cate: 2: groups of items would be read from item_emb.npy as a pickle"):
        on_toy("LDiffRec", n_cate=2)


@pytest.mark.parametrize("name", ["DiffRec", "LDiffRec"])
def test_rows_of_histories(on_toy, name):
    histories = torch.tensor([[3, 1, 3, 2], [5, 0, 0, 0], [0, 0, 0, 0], [4, 6, 4, 0]])
    plain = on_toy(name, score_from="history").model.get_rating_matrix(histories)
    assert [row.nonzero()[:, 0].tolist() for row in plain] == [[1, 2, 3], [5], [], [4, 6]] and plain.max() == 1
    timed = {"time-aware": True, "w_min": 0.1, "w_max": 0.4}
    model = on_toy(name, score_from="history", **timed).model
    expected = torch.zeros(4, model.n_items)
    for row, weights in {0: {1: 0.2, 3: 0.3, 2: 0.4}, 1: {5: 0.1}, 3: {6: 0.25, 4: 0.4}}.items():
        for item, weight in weights.items():
            expected[row, item] = weight
    torch.testing.assert_close(model.get_rating_matrix(histories), expected)


@pytest.mark.parametrize("timed", [False, True])
def test_a_history_that_is_the_training_has_its_rows(on_toy, timed):
    made = on_toy("DiffRec", **{"time-aware": timed})
    data, users = made.data.whole, made.rows["user_id"]
    histories = data.whole_histories(users.numpy(), data.sequences.offsets[users] + data.train_lengths[users])
    torch.testing.assert_close(made.model.get_rating_matrix(histories), made.model.get_rating_matrix(users))


@pytest.mark.parametrize("name", ["DiffRec", "LDiffRec"])
def test_empty_histories_are_empty_rows(on_toy, name):
    model = on_toy(name, **{"time-aware": True, "score_from": "history"}).model
    assert model.get_rating_matrix(torch.zeros(2, 3, dtype=torch.long)).tolist() == [[0.0] * model.n_items] * 2
