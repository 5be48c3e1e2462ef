"""Data sets of a few users, ours and RecBole's own, for the tests of the data layer."""

import random

import numpy as np
import pytest

from recbole_hllm import Config, create_dataset

LOAD_ALL = {"inter": ["user_id", "item_id", "timestamp"]}


@pytest.fixture
def toy_config(tmp_path):
    """Config of a model on ``tmp_path/toy``, on the CPU and without progress bars."""

    def make(model="SASRec", data_path=tmp_path, dataset="toy", **keys):
        settings = {"data_path": str(data_path), "MAX_ITEM_LIST_LENGTH": 5, "use_gpu": False, "show_progress": False}
        return Config(model, dataset, config_dict={**settings, **keys})

    return make


@pytest.fixture
def toy(toy_config):
    """The built data set of a config on ``tmp_path/toy``: the whole and its three parts."""

    def make(model="SASRec", **keys):
        whole = create_dataset(toy_config(model, **keys))
        return whole, *whole.build()

    return make


@pytest.fixture(scope="session")
def random_rows():
    """Interactions of users with 1 to ``longest`` items, times distinct, file order mixed."""

    def make(users=12, items=15, longest=12, seed=0, start=0):
        rng = random.Random(seed)
        owners = [f"u{user}" for user in range(users) for _ in range(rng.randint(1, longest))]
        times = rng.sample(range(start, start + 10 * len(owners)), len(owners))
        return [(user, f"i{rng.randint(1, items)}", time) for user, time in zip(owners, times, strict=True)]

    return make


@pytest.fixture(scope="session")
def by_user_and_time():
    """A part's rows as ``{field: array}``, sorted by user and time."""

    def make(part):
        rows = part[list(range(len(part)))] if len(part) else part.inter_feat
        order = np.lexsort((rows["timestamp"].numpy(), rows["user_id"].numpy()))
        return {field: values.numpy()[order] for field, values in rows.interaction.items()}

    return make


@pytest.fixture(scope="session")
def pairs():
    """(user, target) tokens of a part, in the part's order."""

    def make(part):
        feat = part.inter_feat
        return list(
            zip(part.id2token("user_id", feat["user_id"]), part.id2token("item_id", feat["item_id"]), strict=True)
        )

    return make
