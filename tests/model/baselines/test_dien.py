"""DIEN with users who have no history."""

import pytest
import torch
from recbole.model.sequential_recommender import DIEN as RecBoleDIEN

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.model.baselines.dien import DIEN

HEADER = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"


@pytest.fixture
def built(tmp_path, write_dataset):
    """class -> a model of it with the weights of a seed, and its training rows."""
    steps = [(user, step) for step in range(8) for user in range(12)]
    rows = [(f"u{user}", f"i{(5 * user + step) % 7}", (user + step) % 2, 100 * step + user) for user, step in steps]
    write_dataset(tmp_path, "liked", rows, header=HEADER)

    def make(kind):
        keys = {"data_path": str(tmp_path), "MAX_ITEM_LIST_LENGTH": 5, "mlp_hidden_size": [8], "use_gpu": False}
        config = Config("DIEN", "liked", config_dict={**keys, "history_filter": "all"})
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return kind(config, train._dataset), train._dataset[:]

    return make


def test_with_histories_it_is_recboles(built):
    ours, rows = built(DIEN)
    stock, _ = built(RecBoleDIEN)
    rows = rows[rows["item_length"] > 0]
    assert len(rows) > 50
    assert torch.equal(ours.calculate_loss(rows), stock.calculate_loss(rows))
    ours.eval(), stock.eval()
    assert torch.equal(ours.predict(rows), stock.predict(rows))


def test_an_empty_history_is_one_padding_item(built):
    model, rows = built(DIEN)
    empty = rows[rows["item_length"] == 0]
    assert len(empty) > 5
    model.eval()
    scores = model.predict(empty)
    one = empty[:]
    one["item_length"][:] = 1
    assert scores.isfinite().all() and torch.equal(scores, model.predict(one))


def test_a_batch_without_two_events_has_no_auxiliary_loss(built):
    model, rows = built(DIEN)
    for length in (0, 1):
        batch = rows[rows["item_length"] == length]
        model.zero_grad()
        loss = model.calculate_loss(batch)
        loss.backward()
        assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
