"""LINE where an item has no users to compare its own with."""

import pytest
import torch
from recbole.model.general_recommender import LINE as RecBoleLINE

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.errors import DataError
from recbole_hllm.model.baselines.line import LINE


@pytest.fixture
def prepared(tmp_path, write_dataset):
    """users without the item "hit" in training -> config and training part of data of 5 users."""

    def make(without):
        rows = [(f"u{user}", f"i{user}{step}", 10 * step + user) for step in range(5) for user in range(5)]
        rows += [(f"u{user}", "hit", 5 + user) for user in range(5 - without)]
        write_dataset(tmp_path, "few", rows)
        config = Config("LINE", "few", config_dict={"data_path": str(tmp_path), "use_gpu": False})
        return config, data_preparation(config, create_dataset(config))[0]._dataset

    return make


def test_an_item_that_all_users_have_is_named(prepared):
    with pytest.raises(DataError, match="LINE compares the users of an item with others, and all have item 'hit'"):
        LINE(*prepared(0))


def test_one_user_without_it_is_enough(prepared):
    config, train = prepared(1)
    model = LINE(config, train)
    assert model.__class__.__bases__ == (RecBoleLINE,)
    hit = train.token2id("item_id", "hit")
    assert model.sampler(torch.full((20,), hit)).tolist() == [train.token2id("user_id", "u4")] * 20
