"""Losses, negatives and items to draw: what fits a model, and against what the samplers could draw by trying all."""

import pytest

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.errors import ConfigError, DataError

ONE = {"distribution": "uniform", "sample_num": 1}


@pytest.mark.parametrize(
    "model, keys, said",
    [
        ("SASRec", {"loss_type": "BCE"}, "loss_type: SASRec has CE and BPR, not 'BCE'"),
        ("SASRec", {"loss_type": "bpr"}, "loss_type: SASRec has CE and BPR, not 'bpr'; did you mean 'BPR'"),
        ("GRU4RecCPR", {"loss_type": "BPR"}, "loss_type: GRU4RecCPR has CE, not 'BPR'"),
        ("FPMC", {"loss_type": "CE"}, "loss_type: FPMC has BPR, not 'CE'"),
        ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": None},
         "train_neg_sample_args: SASRec with loss_type: BPR compares with drawn negatives and None draws none"),
        ("BPR", {"train_neg_sample_args": None}, "train_neg_sample_args: BPR compares with drawn negatives"),
        ("NeuMF", {"train_neg_sample_args": {"distribution": None}}, "NeuMF compares with drawn negatives"),
        ("TransRec", {"train_neg_sample_args": "None"}, "TransRec compares with drawn negatives"),
        ("RepeatNet", {"train_neg_sample_args": ONE}, "RepeatNet compares with all items and would not know"),
        ("SINE", {"train_neg_sample_args": ONE}, "SINE with loss_type: CE compares with all items"),
        ("BPR", {"train_neg_sample_args": {"sample_num": 0}}, "sample_num: 0 is not a whole number of at least 1"),
        ("BPR", {"train_neg_sample_args": {"sample_num": 1.5}}, "sample_num: 1.5 is not a whole number"),
        ("BPR", {"train_neg_sample_args": {"dynamic": True}}, "dynamic: True needs candidate_num"),
        ("BPR", {"train_neg_sample_args": {"distribution": "popularity", "alpha": "x"}}, "alpha: 'x' is not a number"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_data_is_read(tmp_path, model, keys, said):
    with pytest.raises(ConfigError, match=said):
        Config(model, "nowhere", config_dict={"data_path": str(tmp_path), **keys})


@pytest.mark.parametrize(
    "model, keys",
    [
        ("SASRec", {"loss_type": "BPR"}),
        ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": {"sample_num": 3}}),
        ("SASRec", {"train_neg_sample_args": None}),
        ("SINE", {"loss_type": "NLL"}),
        ("SINE", {"loss_type": "BPR", "train_neg_sample_args": ONE}),
        ("NeuMF", {"train_neg_sample_args": {"dynamic": True, "candidate_num": 2}}),
        ("HLLM", {"train_neg_sample_args": None}),
    ],
)
def test_what_fits_is_taken(tmp_path, model, keys):
    Config(model, "nowhere", config_dict={"data_path": str(tmp_path), **keys})


@pytest.mark.parametrize("loss", ["CE", "BPR", "BCE"])
@pytest.mark.parametrize("model, drawn", [("BPR", True), ("TransRec", True), ("RepeatNet", False), ("Pop", False)])
def test_a_loss_of_other_models_of_a_table_changes_no_negatives(tmp_path, model, drawn, loss):
    config = Config(model, "nowhere", config_dict={"data_path": str(tmp_path), "loss_type": loss})
    assert (config["train_neg_sample_args"]["distribution"] == "uniform") == drawn


@pytest.mark.parametrize("model", ["Pop", "Markov"])
def test_models_that_count_count_no_negatives(write_dataset, random_rows, toy_config, tmp_path, model):
    """Keys of a whole table may ask for some."""
    write_dataset(tmp_path, "toy", random_rows())
    config = toy_config(model, train_neg_sample_args=ONE)
    train, *_ = data_preparation(config, create_dataset(config))
    rows = [row for batch in train for row in zip(batch["user_id"].tolist(), batch["item_id"].tolist(), strict=True)]
    part = train._dataset
    users = part.sequences.users[part.sequences.of(part.targets)]
    assert sorted(rows) == sorted(zip(users.tolist(), part.sequences.items[part.targets].tolist(), strict=True))


WALKS = {
    # Training items of each user, the last two of whom are held out; and what can be drawn for each.
    "everybody lacks an item": ([[1, 2], [2, 3]], [4, 4]),
    "one has all that are popular": ([[1, 2], [2, 1]], [3, 3]),
    "one has all": ([[1, 2, 3, 4], [1, 2]], [4, 4]),
    "one item": ([[1, 1], [1, 1]], [1, 1]),
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("model", ["BPR", "FPMC"])
def test_data_without_a_negative_is_refused(write_dataset, toy_config, tmp_path, model, distribution, walk):
    trained, held_out = WALKS[walk]
    rows = [
        (f"u{user}", f"i{item}", step)
        for user, items in enumerate(trained)
        for step, item in enumerate([*items, *held_out])
    ]
    write_dataset(tmp_path, "toy", rows)
    config = toy_config(model, train_neg_sample_args={"distribution": distribution, "sample_num": 1})
    # A general model's rows are all training interactions, of which its negatives are none; a sequential one's are
    # all of a user but the first, and its negative is another item than the target.
    targets = trained if model == "BPR" else [items[1:] for items in trained]
    popular = {item for items in targets for item in items}
    everything = {item for items in [*trained, held_out] for item in items}
    drawn = popular if distribution == "popularity" else everything
    excluded = [set(items) for items in targets] if model == "BPR" else [{item} for items in targets for item in items]
    if any(drawn <= own for own in excluded):
        with pytest.raises(DataError, match="data set 'toy': no negatives to draw: there are"):
            data_preparation(config, create_dataset(config))
        return
    train, *_ = data_preparation(config, create_dataset(config))
    batch = next(iter(train))
    names = train._dataset.field2id_token["item_id"]
    for user, item, negative in zip(batch["user_id"], batch["item_id"], batch["neg_item_id"], strict=True):
        number = int(train._dataset.id2token("user_id", int(user))[1:])
        own = excluded[number] if model == "BPR" else {int(names[item][1:])}
        assert int(names[negative][1:]) in drawn - own
