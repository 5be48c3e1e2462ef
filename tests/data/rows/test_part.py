"""Parts answer what RecBole's loaders and models ask, of their own rows and of the data set they are part of."""

import copy

import numpy as np
import pytest
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType

from recbole_hllm import create_dataset
from recbole_hllm.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

LOAD = {"inter": ["user_id", "item_id", "rating", "timestamp"]}
HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"


def test_any_index_gives_its_rows(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    _, train, *_ = built()
    every = train[torch.arange(len(train))]
    mask = np.arange(len(train)) % 3 == 0
    for index, rows in [([4, 1], [4, 1]), (slice(2, 9, 3), [2, 5, 8]), (7, [7]), (np.array([0, 0]), [0, 0])]:
        for field, values in train[index].interaction.items():
            assert torch.equal(values, every[field][rows])
    assert torch.equal(train[torch.from_numpy(mask)]["item_id"], every["item_id"][mask.nonzero()[0]])


def test_matrix_of_training_interactions_equals_recboles(write_dataset, toy_config, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows(seed=5, rated=True), header=HEADER)
    config = toy_config(load_col=LOAD)
    ours, stock = create_dataset(config).build()[0], SequentialDataset(config).build()[0]
    # A user without a training target (one item alone) is in no row of RecBole's; here its item is training data.
    rows = np.unique(stock.inter_feat["user_id"].numpy())
    for value in (None, "rating"):
        difference = ours.inter_matrix("csr", value) - stock.inter_matrix("csr", value)
        assert abs(difference[rows]).sum() < 1e-6
    alone = np.flatnonzero(ours.sequences.lengths == 1)
    assert ours.inter_matrix("csr")[alone].sum() == len(alone) > 0


def test_whole_and_parts_have_recboles_types(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    whole, train, *_ = built()
    assert isinstance(train, SequentialDataset) and isinstance(train[[0]], Interaction)
    assert whole.field2type["item_id_list"] == FeatureType.TOKEN_SEQ


def test_ids_are_those_of_the_whole_and_rows_their_own(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    whole, *parts = built("Pop")
    assert sum(part.inter_num for part in parts) == whole.inter_num == len(whole.timestamps)
    for part in parts:
        assert part.field2id_token is whole.field2id_token and part.item_num == whole.item_num
        assert len(part) == len(part.targets) == part.inter_num < whole.inter_num
        assert part.inter_feat["item_id"].tolist() == whole.sequences.items[part.targets].tolist()
    histories, _, lengths = parts[0].history_item_matrix()
    assert int(lengths.sum()) == len(parts[0]), "not what is validated and tested"
    assert histories.shape[0] == whole.user_num


def test_fields_that_a_loader_adds_are_known_to_all(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    whole, train, _, test = built()
    train.copy_field_property("neg_item_id", "item_id")
    assert whole.field2type["neg_item_id"] == test.field2type["neg_item_id"] == FeatureType.TOKEN


def test_a_copy_is_a_part_too(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    _, train, *_ = built()
    other = copy.copy(train)
    assert other.whole is train.whole and len(other) == len(train)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = other.no_such_thing


def test_the_first_row_of_a_user(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows())
    _, _, _, test = built(eval_args={"split": {"RS": [0.5, 0.0, 0.5]}, "group_by": "user", "order": "TO"})
    users = test.inter_feat["user_id"].tolist()
    wanted = sorted(set(users), reverse=True)
    assert test.first_rows(wanted).tolist() == [users.index(user) for user in wanted] and len(users) > len(wanted)
    joined = test.join(Interaction({"user_id": torch.tensor(wanted)}))
    assert torch.equal(joined["item_id_list"], test[test.first_rows(wanted)]["item_id_list"])
    with pytest.raises(DataError, match="user 99 .internal id. has no row in this part of 'toy'"):
        test.first_rows([wanted[0], 99])
