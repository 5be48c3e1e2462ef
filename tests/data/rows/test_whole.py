"""Whole rows: of training one a user, of evaluation all that a model may read."""

import pytest

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.data.rows.columns import EVENT_TIME, EVENT_TIMES


@pytest.fixture
def loaders(settings_of):
    config = Config("Blend", config_dict={**settings_of("Blend"), "of": ["one", "two"]})
    return data_preparation(config, create_dataset(config))


def test_training_has_the_latest_target_of_each_user(loaders):
    rows = loaders[0]._dataset[list(range(len(loaders[0]._dataset)))]
    assert sorted(rows["user_id"].tolist()) == list(range(1, 15))
    data = loaders[0]._dataset.whole
    last = data.sequences.offsets[:-1] + data.train_lengths - 1
    of_user = dict(zip(data.sequences.users.tolist(), data.sequences.items[last].tolist(), strict=True))
    assert rows["item_id"].tolist() == [of_user[user] for user in rows["user_id"].tolist()]


def test_evaluation_has_every_target_with_times(loaders):
    rows, *_ = next(iter(loaders[2]))
    assert len(loaders[2]._dataset) == 14 and rows["item_id_list"].shape[1] == 5
    times, length = rows[EVENT_TIMES], rows["item_length"]
    assert ((times > 0) == (rows["item_id_list"] > 0)).all() and (rows[EVENT_TIME] > times.amax(1)).all()
    assert length.max() == 5
