"""Models of RecBole that know users by what they have in training, and that as a dense matrix."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.model.base.contract import Weights


@pytest.fixture
def few_rows(tmp_path, write_dataset):
    """Interactions of 12 users with 7 items, some of which a user has twice, in order: the data set ``few``."""
    rng = np.random.default_rng(5)
    places = [(user, step) for user in range(12) for step in range(4 + user % 4)]
    rows = [(f"u{user}", f"i{rng.integers(0, 7) ** 2 // 7}", 10 * step + user) for user, step in places]
    write_dataset(tmp_path, "few", rows)
    return rows


@pytest.fixture
def few_config(tmp_path, few_rows):
    """(model, keys) -> Config on them."""

    def make(name, **keys):
        keys = {"data_path": str(tmp_path), "use_gpu": False, "topk": [2], "valid_metric": "MRR@2", **keys}
        return Config(name, "few", config_dict=keys)

    return make


@pytest.fixture
def few(few_config):
    """(model, keys) -> a model on these data, and the dense matrix of its training interactions."""

    def make(name, weights=Weights.FRESH, **keys):
        config = few_config(name, **keys)
        train = data_preparation(config, create_dataset(config))[0]._dataset
        assert np.max(matrix := train.inter_matrix("csr").toarray()) > 1
        return config.spec.build(config, train, weights), matrix

    return make


@pytest.fixture
def tested(few_config, few_rows):
    """(model, keys) -> a model on these data in evaluation mode, all rows of its test, and ``had``: (B, n_items) how
    often the user of each row had each item in training and validation, the last item of all being the test's."""

    def make(name, **keys):
        config = few_config(name, **keys)
        train, _, test = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        model = config.spec.build(config, train._dataset).eval()
        rows, *_ = next(iter(test))
        items = train._dataset.field2token_id["item_id"]
        had = np.zeros((len(rows), len(items)), np.float32)
        for number, user in enumerate(train._dataset.id2token("user_id", rows["user_id"].numpy())):
            for _, item, _ in [row for row in few_rows if row[0] == user][:-1]:
                had[number, items[item]] += 1
        assert had.max() > 1 and len(had) == 12
        return SimpleNamespace(model=model, rows=rows, had=had)

    return make


@pytest.fixture(scope="session")
def scores():
    """(model, users) -> their scores of all items, a NumPy array."""

    @torch.no_grad()
    def of(model, users):
        table = model.full_sort_predict(Interaction({"user_id": torch.as_tensor(users)}))
        return table.numpy().reshape(len(users), -1)

    return of


@pytest.fixture
def on_toy(settings_of):
    """(model, keys) -> model, its first batch of training rows, and ``known``: (n_users, n_items) 1 for what a user has
    in training, 0 for all else."""

    def make(name, **keys):
        config = Config(name, config_dict={**settings_of("SASRec"), "state": "critical", **keys})
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        model = config.spec.build(config, train._dataset)
        known = torch.from_numpy((train._dataset.inter_matrix("csr").toarray() > 0).astype(np.float32))
        return SimpleNamespace(model=model, rows=next(iter(train)), known=known, data=train._dataset)

    return make


@pytest.fixture(scope="session")
def propagation():
    """known -> (n_users + n_items) squared matrix of the graph, each edge divided by the roots of both its degrees."""

    def of(known):
        n_users, n_items = known.shape
        graph = torch.cat([known.new_zeros(n_users, n_users), known], dim=1)
        graph = torch.cat([graph, torch.cat([known.T, known.new_zeros(n_items, n_items)], dim=1)])
        roots = graph.sum(1).clamp(min=1) ** -0.5
        return roots[:, None] * graph * roots

    return of
