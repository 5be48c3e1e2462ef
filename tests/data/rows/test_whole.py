"""Whole rows: of training one a user, of evaluation all that a model may read."""

import numpy as np
import pytest

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.data.rows.columns import EVENT_TIME, EVENT_TIMES, WHOLE_HISTORY


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


def test_all_items_stand_beside_the_last_ones(loaders):
    data = loaders[2]._dataset
    rows, (whose, items) = data[[3, 0, 13]], data.histories([3, 0, 13])
    for row, history in enumerate(rows[WHOLE_HISTORY]):
        assert history[history > 0].tolist() == items[whose == row].tolist()
        assert rows["item_id_list"][row].tolist() == history[history > 0][-5:].tolist()
    assert rows[WHOLE_HISTORY].shape == (3, 8)  # of the toy's fourth user, who has 9 items


def test_after_the_data_a_user_has_had_everything(loaders):
    data = loaders[2]._dataset.whole
    rows = data.latest_rows(np.array([4, 2]), whole=True)
    items, offsets = data.sequences.items.tolist(), data.sequences.offsets
    had = [items[offsets[number] : offsets[number + 1]] for number in (4, 2)]
    assert [history[history > 0].tolist() for history in rows[WHOLE_HISTORY]] == had
