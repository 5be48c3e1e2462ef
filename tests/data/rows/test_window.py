"""Windows are cut from training data only."""

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's


@pytest.mark.parametrize("keys", [{}, {"data_split": False}, {"reference": ["chunks"]}])
def test_window_rows_are_cut_from_training_data_only(write_dataset, built, tmp_path, random_rows, keys):
    write_dataset(tmp_path, "toy", random_rows(users=10, longest=20, seed=4))
    whole, train, valid, test = built("HLLM", MAX_ITEM_LIST_LENGTH=4, MAX_ITEM_LIST_LENGTH_TEST=6, **keys)
    rows = train[list(range(len(train)))]
    assert rows["item_id_list"].shape == (len(train), 5) and rows["item_id_list"].dtype == torch.int64
    targets = []
    for user, items, length in zip(rows["user_id"], rows["item_id_list"], rows["item_length"], strict=True):
        begin = whole.sequences.offsets[user]
        history = whole.sequences.items[begin : begin + whole.train_lengths[user]].tolist()
        window = items[:length].tolist()
        assert (items[length:] == 0).all() and length >= 2
        assert any(history[at : at + length] == window for at in range(len(history)))
        targets += [(int(user), item) for item in window[1:]]
    if not keys:
        begin, ends = whole.sequences.offsets[:-1], whole.sequences.offsets[:-1] + whole.train_lengths
        bounds = enumerate(zip(begin, ends, strict=True))
        expected = [(u, int(i)) for u, (b, e) in bounds for i in whole.sequences.items[b + 1 : e]]
        assert sorted(targets) == sorted(expected)
    if "data_split" in keys:
        assert len(train) == (whole.train_lengths >= 2).sum()
    assert test[[0]]["item_id_list"].shape == (1, 6) == valid[[0]]["item_id_list"].shape
