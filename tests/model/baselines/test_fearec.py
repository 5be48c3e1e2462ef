"""FEARec's rows with the same target, against a search of all rows."""

import numpy as np
import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.errors import ConfigError

SUPERVISED = {"contrast": "su", "tau": 1.0, "sim": "dot", "lmd_sem": 1.0}


@pytest.fixture
def built(settings_of):
    """keys -> a model without dropout and its loader."""

    def make(**keys):
        still = {"n_layers": 2, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "state": "critical"}
        config = Config("FEARec", config_dict={**settings_of("SASRec"), **still, **keys})
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return config.spec.build(config, train._dataset), train

    return make


def test_rows_of_each_target(built, capsys):
    model, train = built()
    targets = np.array([int(train._dataset[[row]]["item_id"]) for row in range(len(train._dataset))])
    assert model.same_item_index.keys() == set(targets.tolist())
    for item, rows in model.same_item_index.items():
        assert rows.tolist() == np.flatnonzero(targets == item).tolist()
    assert capsys.readouterr().out == "", "RecBole prints frequencies"


def test_the_other_history_is_one_before_the_same_item(built):
    model, train = built(**SUPERVISED)
    rows, data = next(iter(train)), train._dataset
    model.calculate_loss(rows)
    whole = data[list(range(len(data)))]
    for item, history, own in zip(rows["item_id"], rows["sem_aug"], rows["item_id_list"], strict=True):
        before = whole["item_id_list"][whole["item_id"] == item]
        assert (before == history).all(1).any()
        if len(before.unique(dim=0)) > 1:
            assert not torch.equal(history, own)


def test_the_loss_adds_a_contrast_with_it(built):
    """Cross-entropy over the targets and, of both histories of each row, over all others of the batch."""
    model, train = built(**SUPERVISED)
    rows = next(iter(train))
    loss = model.calculate_loss(rows)
    ours, others = (
        model.forward(rows[items], rows[length])
        for items, length in (("item_id_list", "item_length"), ("sem_aug", "sem_aug_lengths"))
    )
    both = torch.cat([ours, others])
    places = torch.arange(len(both)).roll(len(ours))
    alike = (both @ both.T).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(ours @ model.item_embedding.weight.T, rows["item_id"])
    expected = expected + torch.nn.functional.cross_entropy(alike, places)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_layer_has_nothing_to_share_out(built):
    with pytest.raises(ConfigError, match="n_layers: 1: FEARec .* take 2 at least"):
        built(n_layers=1)
