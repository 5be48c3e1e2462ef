"""Data sets of a few users, ours and RecBole's own, for the tests of the data layer."""

import random

import numpy as np
import pytest
from recbole.data.dataset import SequentialDataset

from recbole_hllm import Config, create_dataset


@pytest.fixture
def toy_config(tmp_path):
    """Config of a model on ``tmp_path/toy``, on the CPU and without progress bars."""

    def make(model="SASRec", data_path=tmp_path, dataset="toy", **keys):
        settings = {"data_path": str(data_path), "MAX_ITEM_LIST_LENGTH": 5, "use_gpu": False, "show_progress": False}
        return Config(model, dataset, config_dict={**settings, **keys})

    return make


@pytest.fixture
def built(toy_config):
    """The built data set of a config on ``tmp_path/toy``: the whole and its three parts."""

    def make(model="SASRec", **keys):
        whole = create_dataset(toy_config(model, **keys))
        return whole, *whole.build()

    return make


@pytest.fixture(scope="session")
def random_rows():
    """Interactions of users with 1 to ``longest`` items, at different times, in mixed file order.

    ``rated`` puts a rating of 1 to 5 before the time.
    """

    def make(users=12, items=15, longest=12, seed=0, rated=False):
        rng = random.Random(seed)
        owners = [f"u{user}" for user in range(users) for _ in range(rng.randint(1, longest))]
        times = rng.sample(range(10 * len(owners)), len(owners))
        rows = [(user, f"i{rng.randint(1, items)}", time) for user, time in zip(owners, times, strict=True)]
        return [(*row[:2], rng.randint(1, 5), row[2]) for row in rows] if rated else rows

    return make


def _by_user_and_time(part):
    rows = part[list(range(len(part)))]
    order = np.lexsort((rows["timestamp"].numpy(), rows["user_id"].numpy()))
    return {field: values.numpy()[order] for field, values in rows.interaction.items()}


@pytest.fixture(scope="session")
def same_parts():
    """Asserts that every field, type and row of each part, and all ids, are as stock RecBole has them."""

    def check(config):
        ours, stock = create_dataset(config), SequentialDataset(config)
        parts, stock_parts = ours.build(), stock.build()
        for field in ("user_id", "item_id"):
            assert ours.field2id_token[field].tolist() == stock.field2id_token[field].tolist()
        for part, stock_part in zip(parts, stock_parts, strict=True):
            assert len(part) == len(stock_part)
            if len(part) == 0:
                continue
            rows, expected = _by_user_and_time(part), _by_user_and_time(stock_part)
            assert sorted(rows) == sorted(expected)
            for field in expected:
                assert rows[field].dtype == expected[field].dtype, field
                np.testing.assert_array_equal(rows[field], expected[field], err_msg=field)
                if field in stock_part.field2type:
                    assert part.field2type[field] == stock_part.field2type[field]
                    assert part.field2seqlen[field] == stock_part.field2seqlen[field]
        return parts, stock_parts

    return check


@pytest.fixture(scope="session")
def pairs():
    """(user, target) tokens of a part, in the part's order."""

    def make(part):
        feat = part.inter_feat
        return list(
            zip(part.id2token("user_id", feat["user_id"]), part.id2token("item_id", feat["item_id"]), strict=True)
        )

    return make


@pytest.fixture(scope="session")
def latest_histories():
    """User -> items of its latest row, and the rows."""

    def read(whole):
        users, sequences = whole.latest_sequences()
        rows = whole.latest_rows(sequences)
        assert rows["user_id"].tolist() == users.tolist() and (rows["item_id"] == 0).all()
        histories = {}
        for user, items, length in zip(users, rows["item_id_list"].numpy(), rows["item_length"].tolist(), strict=True):
            assert (items[length:] == 0).all()
            histories[whole.id2token("user_id", user)] = whole.id2token("item_id", items[:length]).tolist()
        return histories, rows

    return read
