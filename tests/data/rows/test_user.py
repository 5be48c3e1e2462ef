"""A row for each user with training interactions."""

import numpy as np
import torch


def test_each_user_of_the_training_part_once(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows(users=10, longest=9, seed=4))
    whole, train, _, test = built("MultiVAE", train_user_fraction=0.7)
    expected = np.unique(train.inter_feat["user_id"].numpy())
    assert 1 < len(expected) == len(train) < whole.user_num - 1
    rows = train[list(range(len(train)))]
    assert list(rows.interaction) == ["user_id"] and rows["user_id"].tolist() == expected.tolist()
    assert train[[2, 0]]["user_id"].tolist() == expected[[2, 0]].tolist() and rows["user_id"].dtype == torch.int64
    assert {"user_id", "item_id"} <= test[[0]].interaction.keys() and len(test) > len(expected) / 2


def test_the_part_has_all_training_interactions(write_dataset, built, tmp_path, random_rows):
    write_dataset(tmp_path, "toy", random_rows(users=10, longest=9, seed=4))
    _, train, *_ = built("MultiVAE")
    _, others, *_ = built("BPR")
    assert (train.inter_matrix("csr") != others.inter_matrix("csr")).nnz == 0 and len(train) < len(others)
    assert train.rows.item_counts().tolist() == others.rows.item_counts().tolist()


def test_several_sequences_of_a_user_are_one_row(write_dataset, built, tmp_path):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"
    rows = [("a", "i1", "i2", 1), ("b", "i2 i1", "i3", 2), ("a", "i1 i2", "i3", 3)]
    for part in ("train", "valid", "test"):
        write_dataset(tmp_path, "toy", rows, header=header, suffix=f"{part}.inter")
    _, train, *_ = built("MultiVAE", benchmark_filename=["train", "valid", "test"], alias_of_item_id=["item_id_list"])
    assert len(train) == 2 and train[[0, 1]]["user_id"].tolist() == [1, 2]
