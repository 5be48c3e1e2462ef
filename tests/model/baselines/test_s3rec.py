"""S3Rec's first stage against RecBole's own on whole histories, and its two stages in one training."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm import Config, create_dataset, data_preparation, run
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.baselines.s3rec import items_beside, segments

LONG = {"MAX_ITEM_LIST_LENGTH": 5, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "pretrain_epochs": 2}
WEIGHTS = {"aap_weight": 0.2, "mip_weight": 0.7, "map_weight": 1.3, "sp_weight": 0.5}


@pytest.fixture
def keys_of(settings_of):
    return lambda **keys: {**settings_of("SASRec"), **LONG, **keys, "state": "critical"}


@pytest.fixture
def built(keys_of):
    """keys -> a model with weights far from 0, on the toy data, and its loader."""

    def make(**keys):
        config = Config("S3Rec", config_dict=keys_of(**keys))
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        model = config.spec.build(config, train._dataset)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
        return model, train

    return make


def whole_histories(train):
    """(B, 5) histories without padding."""
    rows = train._dataset[list(range(len(train._dataset)))]
    return rows["item_id_list"][rows["item_length"] == 5][:9]


def test_the_loss_is_recboles_where_no_history_is_padded(built):
    model, train = built(**WEIGHTS)
    items = whole_histories(train)
    masked = torch.rand(items.shape, generator=torch.Generator().manual_seed(3)) < 0.4
    others, _ = items_beside(items, model.mask_token)
    inside, other = segments(items, torch.full((len(items),), 5))
    mask = torch.full_like(items, model.mask_token)
    features = torch.zeros(*items.shape, model.n_features)
    classes = train._dataset.get_item_feature()["class"]
    for row, place in np.ndindex(*items.shape):
        for name in classes[items[row, place]].tolist():
            if name:
                features[row, place, name - 1] = 1
    assert 0 < features.sum() < features.numel() and masked.any() and inside.any(1).all()
    read = torch.where(masked, mask, items)
    rest = (torch.where(inside, mask, items), torch.where(inside, items, mask), torch.where(inside, other, mask))
    model.loss_fct = torch.nn.BCEWithLogitsLoss(reduction="none")  # as RecBole's code has it in this stage
    expected = model.pretrain(features, read, items, others, *rest) / len(items)
    ours = model.loss_of_items(items, masked, others) + model.loss_of_segments(items, inside, other)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)


def test_padding_has_no_part_in_the_loss(built):
    model, train = built(**WEIGHTS)
    items = whole_histories(train)[:, :3]
    longer = torch.cat([items, torch.zeros_like(items[:, :2])], 1)
    masked = torch.tensor([True, False, True]).expand_as(items)
    inside, other = torch.tensor([False, True, False]).expand_as(items), items.roll(1, 0)
    losses = []
    for read in (items, longer):
        padded = [torch.cat([of, of[:, :2] & False], 1)[:, : read.shape[1]] for of in (masked, inside)]
        others = torch.cat([other, other[:, :2]], 1)[:, : read.shape[1]]
        losses.append(model.loss_of_items(read, padded[0], others) + model.loss_of_segments(read, padded[1], others))
    torch.testing.assert_close(*losses)


def test_a_history_of_one_item_has_no_segment(built):
    model, _ = built(aap_weight=0.0, mip_weight=0.0, map_weight=0.0)
    items = torch.tensor([[3, 0, 0], [4, 0, 0]])
    inside, other = segments(items, torch.tensor([1, 1]))
    assert not inside.any() and model.loss_of_segments(items, inside, other).item() == 0


@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=5), min_size=1, max_size=4))
def test_what_is_drawn(histories):
    items = torch.tensor([history + [0] * (5 - len(history)) for history in histories])
    lengths = torch.tensor([len(history) for history in histories])
    others, there = items_beside(items, 7)
    for row, history in enumerate(histories):
        free = {1, 2, 3, 4, 5, 6} - {*history}
        assert bool(there[row]) == bool(free)
        assert not free or {*others[row].tolist()} <= free
    inside, other = segments(items, lengths)
    every = [item for history in histories for item in history]
    for row, history in enumerate(histories):
        places = inside[row].nonzero().flatten().tolist()
        assert len(places) <= len(history) // 2 and bool(places) == (len(history) > 1)
        assert places == list(range(len(history)))[slice(*(places[0], places[-1] + 1))] if places else True
        drawn = other[row][inside[row]].tolist()
        assert any(every[begin : begin + len(drawn)] == drawn for begin in range(len(every)))


def test_items_beside_are_drawn_alike():
    torch.manual_seed(0)
    others, _ = items_beside(torch.tensor([[2, 4, 2, 0]]).expand(4000, 4), 7)
    counts = torch.bincount(others.flatten(), minlength=7) / others.numel()
    assert counts[[0, 2, 4]].sum() == 0
    assert counts[[1, 3, 5, 6]].tolist() == pytest.approx([0.25] * 4, abs=0.02)


def test_both_stages_are_one_training(keys_of, tmp_path):
    result = run("S3Rec", config_dict=keys_of(epochs=3, learning_rate=0.01), run_dir=tmp_path / "run")
    costs = json.loads((tmp_path / "run" / "costs.json").read_text())
    curve = json.loads((tmp_path / "run" / "curve.json").read_text())
    assert [point["epoch"] for point in curve] == [2, 3, 4], "no validation follows an epoch of the first stage"
    assert costs["stop_reason"] == "limit of 3 epochs" and result["test_result"]["mrr@10"] > 0


def test_epochs_0_trains_neither(keys_of, tmp_path):
    run("S3Rec", config_dict=keys_of(epochs=0), run_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "costs.json").read_text())["steps"] == 0


def test_validations_inside_epochs_come_after_the_first_stage(keys_of, tmp_path):
    run("S3Rec", config_dict=keys_of(epochs=1, eval_every_steps=1, train_batch_size=24), run_dir=tmp_path / "run")
    curve = json.loads((tmp_path / "run" / "curve.json").read_text())
    steps = json.loads((tmp_path / "run" / "costs.json").read_text())["steps"]
    assert [point["steps"] for point in curve] == list(range(steps * 2 // 3 + 1, steps + 1))


def test_the_first_stage_changes_what_the_second_starts_from(keys_of, tmp_path):
    """Its loss falls, and numbers that the second stage does not read are left out of those to recommend with."""
    terms = []
    for epochs in (0, 6):
        run_dir = tmp_path / str(epochs)
        keys = keys_of(epochs=1, pretrain_epochs=epochs, learning_rate=0.01)
        terms.append(run("S3Rec", config_dict=keys, run_dir=run_dir)["test_result"])
        costs = json.loads((run_dir / "costs.json").read_text())
        assert costs["parameters_inference"] < costs["parameters_total"]
    assert terms[0] != terms[1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train_stage": "finetune"}, "train_stage: both stages are one training here"),
        ({"pre_model_path": "saved/S3Rec.pth"}, "pre_model_path: both stages"),
        ({"pretrain_epochs": -1}, "pretrain_epochs: -1 must be a whole number, 0 or more"),
        ({"item_attribute": "colour"}, "item_attribute: S3Rec needs a feature column of .*, which has no colour"),
        ({"item_attribute": ["class", "title"]}, "item_attribute: S3Rec reads one column, not class, title"),
    ],
)
def test_wrong_keys(keys_of, keys, message):
    with pytest.raises(ConfigError, match=message):
        config = Config("S3Rec", config_dict=keys_of(**keys))
        config.spec.model.check_keys(config)


@pytest.mark.parametrize("column", ["class", "title"])
def test_the_column_of_attributes(built, column):
    """One that the data has, or the named one; 0 is no attribute."""
    model, train = built(item_attribute=column if column == "title" else None)
    expected = train._dataset.get_item_feature()[column]
    assert torch.equal(model.attributes, expected.view(len(expected), -1))
    assert model.n_features == train._dataset.num(column) - 1
