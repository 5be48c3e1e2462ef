"""DGCF with fewer users or items than its loss draws for a batch, and with batches that it draws none for."""

import pytest
import torch
from recbole.model.general_recommender import DGCF as RecBoleDGCF

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.model.baselines.dgcf import DGCF


@pytest.fixture
def built(tmp_path, write_dataset):
    """(class, batch size) -> a model of 12 users and 6 items, padding not counted, and its training rows."""
    rows = [(f"u{user}", f"i{(user + step) % 6}", 10 * step + user) for step in range(5) for user in range(12)]
    write_dataset(tmp_path, "few", rows)

    def make(kind, batch_size):
        keys = {"data_path": str(tmp_path), "embedding_size": 8, "use_gpu": False, "train_batch_size": batch_size}
        config = Config("DGCF", "few", config_dict=keys)
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return kind(config, train._dataset), next(iter(train))

    return make


@pytest.mark.parametrize("batch_size, of_recbole, drawn", [(1, 0, 1), (2, 0, 1), (12, 3, 3), (24, 6, 6), (48, 13, 7)])
def test_users_and_items_drawn_for_a_batch(built, batch_size, of_recbole, drawn):
    stock, _ = built(RecBoleDGCF, batch_size)
    ours, rows = built(DGCF, batch_size)
    assert (stock.cor_batch_size, ours.cor_batch_size) == (of_recbole, drawn)
    loss = ours.calculate_loss(rows)
    loss.backward()
    assert loss.isfinite() and all(parameter.grad.isfinite().all() for parameter in ours.parameters())
