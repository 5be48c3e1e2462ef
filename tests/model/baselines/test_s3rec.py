"""S3Rec's first stage against RecBole's own on whole histories, and its two stages in one training."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm import Config, create_dataset, data_preparation, run
from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.model.baselines.s3rec import S3Rec, items_beside, segments
from recbole_hllm.runs.plan import plan

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
    torch.manual_seed(0)
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


def test_a_loss_of_the_first_stage(built):
    """Items are masked, then segments are drawn; every layer of the stage learns, and none of it in the second."""
    model, train = built(mask_ratio=0.5)
    rows = next(iter(train))
    items, lengths = rows["item_id_list"], rows["item_length"]
    model.begin_epoch(1)
    torch.manual_seed(4)
    loss = model.calculate_loss(rows)
    torch.manual_seed(4)
    of_items = model.loss_of_items(items, *model.masked(items))
    of_segments = model.loss_of_segments(items, *segments(items, lengths))
    assert of_items > 0 and of_segments > 0
    torch.testing.assert_close(loss, of_items + of_segments)
    alone = [model.feature_embedding, model.aap_norm, model.mip_norm, model.map_norm, model.sp_norm]
    loss.backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in alone)
    model.zero_grad()
    model.begin_epoch(2)
    expected = torch.nn.functional.cross_entropy(
        model.gather_indexes(model.forward(items, bidirectional=False), lengths - 1) @ model.item_embedding.weight.T,
        rows["item_id"],
    )
    loss = model.calculate_loss(rows)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(layer.weight.grad is None for layer in alone) and model.item_embedding.weight.grad is not None


def test_what_is_masked(built):
    model, _ = built(mask_ratio=0.3)
    torch.manual_seed(0)
    few = torch.tensor([[1, 2, 3, 0, 0]]).expand(2000, 5)
    masked, others = model.masked(few)
    assert masked[:, :3].float().mean(0).tolist() == pytest.approx([0.3] * 3, abs=0.04)
    assert not masked[:, 3:].any() and others[masked].min() == 4 and others.max() == 12
    every = torch.arange(1, 13).expand(50, 12)
    assert not model.masked(every)[0].any(), "there is no other item to compare with"


def test_the_first_stage_learns(built):
    model, train = built(mask_ratio=0.5, aap_weight=1.0)
    model.begin_epoch(0)
    rows, optimizer, losses = next(iter(train)), torch.optim.Adam(model.parameters(), 0.01), []
    for step in range(60):
        torch.manual_seed(step % 3)
        losses.append(model.calculate_loss(rows))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_both_stages_are_one_training(keys_of, tmp_path, monkeypatch):
    stages, original = [], S3Rec.calculate_loss

    def watched(self, rows):
        stages.append(self.train_stage)
        return original(self, rows)

    monkeypatch.setattr(S3Rec, "calculate_loss", watched)
    run("S3Rec", config_dict=keys_of(epochs=3), run_dir=tmp_path / "run")
    costs, curve = (json.loads((tmp_path / "run" / name).read_text()) for name in ("costs.json", "curve.json"))
    batches = costs["steps"] // 5
    assert stages == ["pretrain"] * 2 * batches + ["finetune"] * 3 * batches
    assert [point["epoch"] for point in curve] == [2, 3, 4], "no validation follows an epoch of the first stage"
    assert (costs["epochs"], costs["stop_reason"]) == (5, "limit of 3 epochs after 2 of pre-training")
    assert costs["parameters_total"] - costs["parameters_inference"] == 4 * (8 * 8 + 8) + 3 * 8


def test_epochs_0_trains_neither(keys_of, tmp_path):
    run("S3Rec", config_dict=keys_of(epochs=0), run_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "costs.json").read_text())["steps"] == 0


def test_validations_inside_epochs_come_after_the_first_stage(keys_of, tmp_path):
    run("S3Rec", config_dict=keys_of(epochs=1, eval_every_steps=1, train_batch_size=24), run_dir=tmp_path / "run")
    curve = json.loads((tmp_path / "run" / "curve.json").read_text())
    steps = json.loads((tmp_path / "run" / "costs.json").read_text())["steps"]
    assert [point["steps"] for point in curve] == list(range(steps * 2 // 3 + 1, steps + 1))


def test_a_limit_inside_the_first_stage_is_told(keys_of, tmp_path):
    run("S3Rec", config_dict=keys_of(max_steps=1), run_dir=tmp_path / "run")
    costs = json.loads((tmp_path / "run" / "costs.json").read_text())
    assert costs["stop_reason"] == "limit of 1 step, before the end of pre-training" and not costs["converged"]


def test_a_training_goes_on_with_the_same_first_stage_only(keys_of, tmp_path):
    run("S3Rec", config_dict=keys_of(max_steps=1), run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="began with 2 epochs of pre-training, and would have 3 now"):
        run("S3Rec", config_dict=keys_of(resume=True, pretrain_epochs=3), run_dir=tmp_path / "run")
    # What was refused is no part of the run.
    run(config_dict={"resume": True, "max_steps": None, "epochs": 1}, run_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "costs.json").read_text())["epochs"] == 3


def test_costs_of_each_stage(built):
    model, train = built()
    rows = next(iter(train))
    items = int(rows["item_length"].sum())
    model.begin_epoch(0)
    assert model.positions_read(rows) == 4 * items
    assert model.scoring_flops(rows) == 6 * items * 3 * 8  # three attributes of 8 numbers
    model.begin_epoch(2)
    assert model.positions_read(rows) is None
    assert model.scoring_flops(rows) == 6 * len(rows) * 14 * 8  # the mask is an item, too


def test_a_plan_is_of_both_stages(keys_of):
    """FLOPs of an epoch are the mean over the epochs of both."""
    several = {}
    for pretrain_epochs, epochs in ((0, 3), (1, 3), (3, 1)):
        planned = plan("S3Rec", config_dict=keys_of(pretrain_epochs=pretrain_epochs, epochs=epochs))
        assert planned["seconds"]["limit"] == f"{pretrain_epochs + epochs} epochs"
        several[pretrain_epochs] = planned["flops"]
    second = several[0]
    assert several[1] - second > 0
    assert several[3] - second == pytest.approx(3 * (several[1] - second))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train_stage": "finetune"}, "train_stage: both stages are one training here"),
        ({"pre_model_path": "saved/S3Rec.pth"}, "pre_model_path: both stages"),
        ({"pretrain_epochs": -1}, "pretrain_epochs: -1 must be a whole number, 0 or more"),
        ({"item_attribute": "colour"}, "item_attribute: S3Rec needs a feature column of .*, which has no colour"),
        ({"item_attribute": ["class", "title"]}, "item_attribute: S3Rec reads one column, not class, title"),
        ({"item_attribute": 5}, "item_attribute: 5 is neither the name of a column nor a list of them"),
        ({"item_attribute": "item_id"}, "item_attribute: 'item_id' has the ids of the items"),
        ({"save_step": 5}, "save_step: both stages"),
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


@pytest.mark.parametrize(
    ("header", "cells", "error", "message"),
    [
        ("class:token_seq", "", DataError, "no item has a value in the column 'class', which item_attribute names"),
        ("price:float", "2", ConfigError, "item_attribute: 'price' is a float column, and S3Rec reads token or token_"),
    ],
)
def test_columns_without_attributes(keys_of, write_dataset, tmp_path, header, cells, error, message):
    rows = [(f"u{user}", f"i{(user + step) % 6}", step) for user in range(6) for step in range(5)]
    items = ("item_id:token\t" + header, [(f"i{item}", cells) for item in range(6)])
    write_dataset(tmp_path, "few", rows, items)
    keys = keys_of(data_path=str(tmp_path), dataset="few", item_attribute=header.partition(":")[0], topk=[3])
    keys["valid_metric"] = "MRR@3"
    with pytest.raises(error, match=message):
        run("S3Rec", config_dict=keys, run_dir=tmp_path / "run")


def test_keys_of_a_run_are_read_back(keys_of):
    """An empty text is RecBole's default of a key, and what is saved of it."""
    config = Config("S3Rec", config_dict=keys_of())
    again = Config("S3Rec", config_dict={**config.settings, "pre_model_path": None})
    assert again["pre_model_path"] == config["pre_model_path"] == ""
