"""BERT4Rec with batches that hold no target, and with histories of every item there is."""

import random

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.data.transform import MaskItemSequence
from recbole.model.sequential_recommender import BERT4Rec as RecBoleBERT4Rec

from recbole_hllm import Config, create_dataset, data_preparation, run
from recbole_hllm.data.loader import MaskedHistories
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.baselines.bert4rec import BERT4Rec

SMALL = {"hidden_size": 8, "inner_size": 16, "n_layers": 1, "n_heads": 2, "hidden_dropout_prob": 0.0,
         "attn_dropout_prob": 0.0, "use_gpu": False, "mask_ratio": 0.5}  # fmt: skip


@pytest.fixture
def built(tmp_path, write_dataset):
    """(class, items, length, **keys) -> a model with the weights of a seed, and the loader of its training rows."""

    def make(kind, items=9, length=8, **keys):
        places = [(step, user) for step in range(length) for user in range(6)]
        rows = [(f"u{user}", f"i{(2 * user + step) % items}", 10 * step + user) for step, user in places]
        write_dataset(tmp_path, "walks", rows)
        config = {**SMALL, "data_path": str(tmp_path), "MAX_ITEM_LIST_LENGTH": 6, "state": "critical", **keys}
        config = Config("BERT4Rec", "walks", config_dict=config)
        train, *_ = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return kind(config, train._dataset), train

    return make


def masked(train, index, seed=3):
    random.seed(seed)
    return train.collate_fn(index)


@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
def test_with_targets_it_is_recboles(built, loss_type):
    keys = {"loss_type": loss_type}
    ours, train = built(BERT4Rec, **keys)
    stock, _ = built(RecBoleBERT4Rec, **keys)
    index = list(range(len(train._dataset)))
    losses = []
    for model in (ours, stock):
        loss = model.calculate_loss(masked(train, index))
        loss.backward()
        losses.append((loss.detach(), [parameter.grad for parameter in model.parameters()]))
    assert losses[0][0] == losses[1][0] > 0
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=0, atol=0)


@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
def test_a_batch_without_a_target_teaches_nothing(built, loss_type):
    """Whatever is masked in histories of one item is their first, which BERT4Rec does not count."""
    ours, train = built(BERT4Rec, loss_type=loss_type)
    stock, _ = built(RecBoleBERT4Rec, loss_type=loss_type)
    short = [number for number, row in enumerate(train._dataset[:]["item_length"]) if row == 1]
    assert len(short) == 6
    assert stock.calculate_loss(masked(train, short)).isnan()
    loss = ours.calculate_loss(masked(train, short))
    loss.backward()
    assert loss == 0 and all(not parameter.grad.any() for parameter in ours.parameters())


@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
def test_parts_of_a_batch_weigh_by_their_targets(built, loss_type):
    """As processes that share it weigh them; the first part has histories of one item, and no target."""
    model, train = built(BERT4Rec, loss_type=loss_type)
    numbers = train._dataset[:]["item_length"].argsort(stable=True)
    rows, total, targets = masked(train, numbers.numpy()), 0.0, 0
    for part in (slice(0, 6), slice(6, 10), slice(10, None)):
        columns = {name: values[part].clone() for name, values in rows.interaction.items()}
        total += model.calculate_loss(Interaction(columns)) * model.loss_parts
        targets += model.loss_parts
        assert part.start or not model.loss_parts
    torch.testing.assert_close(total / targets, model.calculate_loss(rows))
    assert model.loss_parts == targets > 0


def test_a_history_of_all_items_has_no_negative(built):
    """RecBole's mean over the histories that leave an item out is ours over all."""
    ours, train = built(BERT4Rec, items=3, length=8, loss_type="BPR")
    rows = masked(train, list(range(len(train._dataset))))
    full = torch.tensor([len({*history} - {0}) == 3 for history in rows["item_id_list"].tolist()])
    counted = rows["MASK_INDEX"] > 0
    negatives = rows["Neg_item_id"]
    assert full.any() and not full.all()
    assert (negatives[full] == 0).all() and (negatives[~full][counted[~full]] > 0).all()
    others = masked(train, list(range(len(train._dataset))))
    loss = ours.calculate_loss(rows)
    stock, _ = built(RecBoleBERT4Rec, items=3, length=8, loss_type="BPR")
    assert loss.item() == pytest.approx(stock.calculate_loss(others[~full]).item(), rel=1e-6)


def test_other_draws_are_recboles():
    """The same stream of random numbers, so that no run on other data changes."""
    config = {"ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "MAX_ITEM_LIST_LENGTH": 5, "mask_ratio": 0.4,
              "ITEM_LIST_LENGTH_FIELD": "item_length"}  # fmt: skip
    draws = []
    for kind in (MaskedHistories, MaskItemSequence):
        random.seed(1)
        transform = kind(dict(config))
        draws.append([transform._neg_sample([2, 3, 2, 0, 0], 5) for _ in range(50)])
    assert draws[0] == draws[1] and {*draws[0]} == {1, 4}
    state = random.getstate()
    assert MaskedHistories(dict(config))._neg_sample([1, 2, 3, 4], 5) == 0 and random.getstate() == state


def test_a_run_on_three_items_ends(built, settings_of, tmp_path):
    built(BERT4Rec, items=3)
    keys = {**settings_of("BERT4Rec"), "data_path": str(tmp_path), "dataset": "walks", "train_batch_size": 1}
    result = run("BERT4Rec", config_dict={**keys, "MAX_ITEM_LIST_LENGTH": 6, "topk": [1, 3], "valid_metric": "MRR@3"},
                 run_dir=tmp_path / "run")  # fmt: skip
    assert result["test_result"]["recall@3"] == 1.0


def test_a_ratio_that_masks_nothing_is_refused(built):
    built(BERT4Rec, mask_ratio=0.17)
    with pytest.raises(ConfigError, match="mask_ratio: 0.16 of MAX_ITEM_LIST_LENGTH: 6 is less than one item to mask"):
        built(BERT4Rec, mask_ratio=0.16)
