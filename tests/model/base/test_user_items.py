"""Rows of a sparse matrix, and tables that do not fit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base import user_items
from recbole_hllm.model.base.user_items import UserItems, check_room


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_rows_are_those_of_the_dense_matrix(seed, n_users, n_items):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 3, (n_users, n_items)) * rng.integers(0, 2, (n_users, n_items))
    rows, users = UserItems(sparse.coo_matrix(matrix), torch.device("cpu")), rng.integers(0, n_users, 5)
    expected = torch.from_numpy(matrix[users].astype(np.float32))
    assert torch.equal(rows.dense(torch.from_numpy(users)), expected)
    assert torch.equal(rows.sparse(torch.from_numpy(users)).to_dense(), expected)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 8))
def test_rows_of_histories_are_counts_or_ones(seed, n_rows, width):
    rng = np.random.default_rng(seed)
    histories = rng.integers(1, 6, (n_rows, width)) * (np.arange(width) < rng.integers(0, width + 1, (n_rows, 1)))
    counts = torch.from_numpy(np.stack([np.bincount(row[row > 0], minlength=6) for row in histories])).float()
    for once, expected in ((False, counts), (True, counts.clamp(max=1))):
        rows = UserItems(sparse.csr_matrix((3, 6)), torch.device("cpu"), once)
        assert torch.equal(rows.dense(torch.from_numpy(histories)), expected)
        assert torch.equal(rows.sparse(torch.from_numpy(histories)).to_dense(), expected)


def test_an_item_of_the_matrix_may_count_once():
    matrix = sparse.csr_matrix([[0, 2.0, 1], [3, 0, 0]])
    rows = UserItems(matrix, torch.device("cpu"), once=True)
    assert rows.dense(torch.tensor([1, 0])).tolist() == [[1, 0, 0], [0, 1, 1]] and matrix.max() == 3


def test_the_table_that_does_not_fit_is_named(monkeypatch):
    monkeypatch.setattr(user_items, "free_memory", lambda device: 2.0**30)
    check_room("EASE", "a table", 2.0**30, torch.device("cpu"), "take less")
    said = "^EASE: a table needs 1.50 GiB at least, and 1.00 GiB are free; take less$"
    with pytest.raises(ConfigError, match=said):
        check_room("EASE", "a table", 1.5 * 2**30, torch.device("cpu"), "take less")


@pytest.mark.parametrize(
    "name, said", [("EASE", "each pair of 12 items .* item_inter_num_interval"),
                   ("MultiVAE", "a batch of 14 users .* each of 12 items .* smaller train_batch_size")],
)  # fmt: skip
def test_models_look_before_they_take(settings_of, monkeypatch, name, said):
    config = Config(name, config_dict=settings_of("SASRec"))
    train = data_preparation(config, create_dataset(config))[0]._dataset
    monkeypatch.setattr(user_items, "free_memory", lambda device: 1000.0)
    with pytest.raises(ConfigError, match=said):
        config.spec.build(config, train)
    with pytest.raises(ConfigError, match=said):
        config.spec.outline(config, train)
